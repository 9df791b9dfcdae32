"""``python -m pet_cifar`` is ``pet-cifar``."""

from pet_cifar.cli.main import run_from_shell

if __name__ == "__main__":
    run_from_shell()

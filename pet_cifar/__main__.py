"""``python -m pet_cifar`` is ``pet-cifar``."""

from pet_cifar.cli import main

if __name__ == "__main__":
    main()

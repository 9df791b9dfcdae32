"""Image classification experiments with PyTorch Lightning that show what the network sees."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pet_cifar.runs.load import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Finds `load` when it is asked for, because importing it imports torch, which takes seconds."""
    if name == "load":
        from pet_cifar.runs.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

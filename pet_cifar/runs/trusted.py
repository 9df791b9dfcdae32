"""Which modules a file that may come from anyone can name: a config, a checkpoint, a run directory.

A class that such a file names is imported and built, which runs code. So only packages count that are known to do no
harm, and the modules that the user names with ``--trust`` or in the environment variable `VARIABLE`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module

from pet_cifar.errors import InputError

PACKAGES = ("pet_cifar", "lightning", "torch", "torchvision", "torchmetrics", "timm")
VARIABLE = "PET_CIFAR_TRUST"
HELP = "A module whose classes files may name, beside those of this package and of the libraries that it uses."

_TYPED: ContextVar[tuple[str, ...]] = ContextVar("_TYPED", default=())


@contextmanager
def trusting(modules: Sequence[str]) -> Iterator[None]:
    """Trusts the modules that the user has named, within the block.

    Raises:
        InputError: One of them is no name of a module.
    """
    for name in modules:
        _check_name("--trust", name)
    token = _TYPED.set(tuple(modules))
    try:
        yield
    finally:
        _TYPED.reset(token)


def trusted_modules() -> tuple[str, ...]:
    """The modules that the user has named, typed or in the environment variable, where commas divide them.

    Raises:
        InputError: The variable holds what is no name of a module.
    """
    named = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    for name in named:
        _check_name(VARIABLE, name)
    return (*_TYPED.get(), *named)


def is_trusted(path: str) -> bool:
    """Whether a file may name what is at this dotted path."""
    return any(path == name or path.startswith(f"{name}.") for name in (*PACKAGES, *trusted_modules()))


def import_trusted() -> None:
    """Imports the modules that the user has named, so that their classes are known by their short names.

    Raises:
        InputError: One of them cannot be imported.
    """
    for name in trusted_modules():
        try:
            import_module(name)
        except ImportError as error:
            raise InputError(
                f"--trust {name}: the module cannot be imported ({error}); give one that is installed or on PYTHONPATH"
            ) from error


def _check_name(option: str, name: str) -> None:
    if not all(part.isidentifier() for part in name.split(".")):
        raise InputError(f"{option} {name}: this is no name of a module; give one such as my_nets")

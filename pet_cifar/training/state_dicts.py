"""The names and shapes of a state dict's tensors, compared with those of the net that is to take them."""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning import LightningModule
from torch import Tensor

from pet_cifar.errors import InputError

WRAPPERS = ("_orig_mod", "module", "model")
"""The names that a net has within torch.compile, within DDP, and within many a training script's own class."""
FOLLOWS_DATA = ("num_classes", "num_channels", "image_size")


def with_own_names(state: Mapping[str, Any], own: Iterable[str]) -> dict[str, Any]:
    """Gives the tensors of a wrapped net the names that the bare net has for them.

    Args:
        state: The tensors by key.
        own: The keys of the net that is to take them.

    Returns:
        The same tensors. A key that is none of ``own``, with or without the names of wrappers, stays as it is.
    """
    own = set(own)
    bare = _by_bare_name(own)
    found = _by_bare_name(state.keys() - own)
    names = {
        keys[0]: bare[name][0]
        for name, keys in found.items()
        # Two candidates, such as the nets of a student and a teacher, are nothing to choose between.
        if len(keys) == len(bare.get(name, ())) == 1 and bare[name][0] not in state
    }
    return {names.get(key, key): value for key, value in state.items()}


def _by_bare_name(keys: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(".".join(part for part in key.split(".") if part not in WRAPPERS), []).append(key)
    return found


def misfit(state: Mapping[str, Any], own: Mapping[str, Tensor], *, strict: bool = True) -> str | None:
    """What is wrong with the first tensor that a net cannot take; None where it can take all.

    Args:
        state: The tensors by key.
        own: The net's own.
        strict: Whether tensors that are missing, or that the net lacks, are wrong as well.
    """
    for key, value in own.items():
        if key not in state:
            if strict:
                return f"{key} is missing in it"
        elif not isinstance(state[key], Tensor):
            return f"its {key} is no tensor"
        elif state[key].shape != value.shape:
            return f"its {key} is {_shape(state[key])} instead of {_shape(value)}"
    others = [key for key in state if key not in own]
    return f"the net has no {others[0]}" if others and strict else None


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"


def adopt_weights(
    net: LightningModule, shared: type[LightningModule], checkpoint: dict[str, Any], file: object
) -> None:
    """Gives a checkpoint's tensors the names of the net's own, and refuses a checkpoint that does not fit.

    Args:
        net: The net that is to take the checkpoint.
        shared: The base of all nets, whose options change nothing of a net's layers.
        checkpoint: The checkpoint, whose ``state_dict`` is replaced.
        file: Where it lies, for the message; None where that is not known.

    Raises:
        InputError: Tensors are missing, are too many, or have other shapes.
    """
    if "state_dict" not in checkpoint:  # Strategies that divide a net over processes load it on their own.
        return
    own = net.state_dict()
    state = checkpoint["state_dict"] = with_own_names(checkpoint["state_dict"], own)
    wrong = misfit(state, own, strict=net.strict_loading)
    if wrong is None:
        return
    name = type(net).__name__
    source = "the checkpoint" if file is None else f"the checkpoint {Path(str(file))}"
    blamed = list(_differing_options(net, shared, checkpoint.get("hyper_parameters", {})))
    trained = checkpoint.get("net", name)
    if trained != name:
        why = f"--model {name} where it was trained as a {trained}; give --model {trained}"
    elif blamed:
        why = f"{', '.join(blamed)}; give what it was trained with"
    else:
        why = "it was saved from another net, or by another version of this one; give the net that it was saved from"
    raise InputError(f"{source} does not fit the {name}, since {wrong}: {why}")


def _differing_options(net: LightningModule, shared: type, trained: Mapping[str, Any]) -> Iterable[str]:
    """The options that may have changed the net's layers, each with the value that the checkpoint has."""
    options = dict.fromkeys([*FOLLOWS_DATA, *inspect.signature(type(net)).parameters])
    harmless = inspect.signature(shared).parameters.keys() - set(FOLLOWS_DATA)
    for option in options:
        if option in harmless or option not in trained or trained[option] == net.hparams.get(option):
            continue
        section = "data" if option == "image_size" else "model"
        note = ", which the data decides" if option in ("num_classes", "num_channels") else ""
        given = f"--{section}.{option} {net.hparams.get(option)}"
        yield f"{given} where the checkpoint was trained with {trained[option]}{note}"

"""Which pictures a checkpoint's net was trained on, so that none of them is scored as if it were new."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from pet_cifar.data.manifest import OK, ImageRecord
from pet_cifar.errors import InputError
from pet_cifar.names import listed


def state_of(fingerprint: str, trained: Iterable[ImageRecord]) -> dict[str, Any]:
    """What a checkpoint keeps of the data.

    Args:
        fingerprint: A hash of all splits by content.
        trained: The pictures that train, and those that validate, which choose the best checkpoint.

    Returns:
        The fingerprint, and four bytes of the hash of each picture: int32, shape (n,). That two pictures have the
        same four bytes by chance happens to one of 100,000 among 40,000.
    """
    return {"fingerprint": fingerprint, "trained_on": torch.from_numpy(_marks(trained))}


def _marks(records: Iterable[ImageRecord]) -> "np.ndarray[Any, np.dtype[np.int32]]":
    numbers = np.array([int(record.hash[:8], 16) for record in records], np.uint32)
    return np.unique(numbers).view(np.int32)


def reason_against(states: Mapping[str, Any], own: str, current: str, root: Path) -> str | None:
    """Why a score on this data would not be that of the data that a checkpoint's net knows; None where it is the same.

    Args:
        states: The states that a checkpoint holds, by name; that of a data module has a ``fingerprint``.
        own: The name of the data module that is used now.
        current: The fingerprint of its splits.
        root: Its folder, for the message.
    """
    trained = {name: state for name, state in states.items() if isinstance(state, dict) and "fingerprint" in state}
    if trained and own not in trained:
        return (
            f"the checkpoint was trained with a {next(iter(trained))}, not with a {own}; give the original data, or "
            "--data.allow_other_data true to score the pictures of this data that it was not trained on"
        )
    if trained and trained[own]["fingerprint"] != current:
        return (
            f"the checkpoint was trained with other pictures, or another split of them, than {root} gives now; give "
            "the original pictures, split_seed, fractions and images_per_class, or --data.allow_other_data true to "
            "score the pictures of this data that it was not trained on"
        )
    return None


def refuse_other_classes(checkpoint: Mapping[str, Any], class_names: Sequence[str], root: Path) -> None:
    """Refuses a checkpoint whose net tells other classes apart, or has them under other numbers.

    Args:
        checkpoint: What a checkpoint holds, with ``class_names`` where its version keeps them.
        class_names: The names of the data's classes; only their upper and lower case does not count.
        root: The data's folder, for the message.

    Raises:
        InputError: The classes are not the same.
    """
    known = [str(name) for name in checkpoint.get("class_names", ())]
    # A net that was trained with a loader of numbers has no names.
    if not known or known == [str(number) for number in range(len(known))]:
        return
    if [name.casefold() for name in known] != [name.casefold() for name in class_names]:
        raise InputError(
            f"the checkpoint's net knows the classes {listed(known, 10)}, and {root} holds {listed(class_names, 10)}; "
            "give data whose classes have the same names"
        )


def refuse_other_data(states: Mapping[str, Any], own: str, current: str, root: Path) -> None:
    """Refuses a checkpoint of a net that was trained with other data; the arguments are those of `reason_against`.

    Raises:
        InputError: The net was trained with another data module, with other pictures or with other splits.
    """
    reason = reason_against(states, own, current, root)
    if reason is not None:
        raise InputError(reason)


def new_test_split(listed: Sequence[ImageRecord], states: Mapping[str, Any], root: Path) -> list[ImageRecord] | None:
    """The pictures of other data that a checkpoint's net can be tested on.

    Args:
        listed: All pictures of the data with their verdicts; where some are its own test split, these alone count.
        states: The states that the checkpoint holds, by name.
        root: The data's folder, for the message.

    Returns:
        None where the checkpoint, of an earlier version, does not tell what it was trained on.

    Raises:
        InputError: The net was trained on all of them.
    """
    usable = [record for record in listed if record.verdict == OK]
    own = [record for record in usable if record.split == "test"] or usable
    new = not_trained_on(own, states)
    if new is not None and not new:
        raise InputError(f"the net was trained on all {len(own)} pictures of {root}, so that none is left to be scored")
    if new is not None:
        rank_zero_info(f"other data: {len(new)} of {len(own)} pictures are scored, all that the net was not trained on")
    return new


def not_trained_on(records: Sequence[ImageRecord], states: Mapping[str, Any]) -> list[ImageRecord] | None:
    """The pictures that a checkpoint's net has not seen in training.

    Args:
        records: The pictures.
        states: The states that the checkpoint holds, by name.

    Returns:
        None where the checkpoint, of an earlier version, does not tell.
    """
    marks = [state["trained_on"] for state in states.values() if isinstance(state, dict) and "trained_on" in state]
    if not marks:
        return None
    trained: set[int] = set()
    for tensor in marks:
        assert isinstance(tensor, Tensor), "state_of has made it"
        trained |= set(tensor.numpy().view(np.uint32).tolist())
    return [record for record in records if int(record.hash[:8], 16) not in trained]

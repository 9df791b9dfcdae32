"""One picture in any form that a program may have it in, made into pixels in a net's size."""

from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile
from torch import Tensor

from pet_cifar.data.files.regular import read_regular
from pet_cifar.data.pixels.decode import DecodeError, decode, fit_array, fit_image
from pet_cifar.errors import InputError
from pet_cifar.names import printable

Picture: TypeAlias = "str | Path | bytes | Image.Image | NDArray[np.uint8] | Tensor"
"""A file's path or its bytes, a PIL picture, a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a tensor."""


def pixels_of(picture: Picture, image_size: int, channels: Literal[1, 3]) -> Tensor:
    """Decodes and resizes one picture as in training.

    A PIL picture whose pixels are not loaded yet is decoded from its file, and so gives what its path gives. One whose
    pixels are loaded is resized from these; a large JPEG, which training decodes at a smaller scale, then differs by
    about one level.

    Args:
        picture: See `Picture`. A tensor has the shape (C, H, W); it is uint8 of one or three channels and any size, or
            floats in [0, 1] in the net's own.
        image_size: The side in pixels.
        channels: 1 for gray, 3 for color.

    Returns:
        uint8, shape (channels, image_size, image_size); float32 for a tensor of floats.

    Raises:
        InputError: It is not there, is no picture, or has another shape.
    """
    if isinstance(picture, Tensor):
        return _of_tensor(picture, image_size, channels)
    try:
        return torch.from_numpy(_of_picture(picture, image_size, channels))
    except DecodeError as error:
        what = (
            printable(str(picture))
            if isinstance(picture, str | Path)
            else "these bytes"
            if isinstance(picture, bytes)
            else "this PIL picture"
        )
        raise InputError(f"{what} cannot be read as a picture: {described(error)}; leave it out") from error


def described(error: DecodeError) -> str:
    """Why a picture could not be decoded, with the kind of the reason."""
    return f"{error.verdict}: {error}"


def _of_picture(picture: Picture, image_size: int, channels: Literal[1, 3]) -> NDArray[np.uint8]:
    if isinstance(picture, str | Path):
        try:
            encoded = read_regular(Path(picture).expanduser())
        except (OSError, ValueError) as error:  # A ValueError tells of a null byte in the name.
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"cannot read {printable(str(picture))}: {reason}; give a picture's path") from error
        return decode(encoded, image_size, channels)
    if isinstance(picture, bytes):
        return decode(picture, image_size, channels)
    if isinstance(picture, Image.Image):
        whole = _encoded(picture)
        return fit_image(picture, image_size, channels) if whole is None else decode(whole, image_size, channels)
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and 0 not in picture.shape:
        if picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (3, 4)):
            return fit_array(np.ascontiguousarray(picture), image_size, channels)
        if picture.ndim == 3 and picture.shape[2] == 1:
            return fit_array(np.ascontiguousarray(picture[..., 0]), image_size, channels)
    raise InputError(
        f"a picture is {_kind(picture)}; give a path, bytes, a PIL picture, a tensor, or an array of uint8 with the "
        "shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    )


def _encoded(picture: Image.Image) -> bytes | None:
    """The bytes of the file that a PIL picture would be loaded from; None where its pixels are loaded, or were made."""
    if not isinstance(picture, ImageFile.ImageFile) or not picture.tile or getattr(picture, "fp", None) is None:
        return None
    # Another frame than the first is not what decoding the file gives.
    if getattr(picture, "is_animated", False) and picture.tell() != 0:
        return None
    stream = picture.fp
    assert stream is not None
    place = stream.tell()
    try:
        stream.seek(0)
        return stream.read()
    finally:
        stream.seek(place)


def _of_tensor(picture: Tensor, image_size: int, channels: Literal[1, 3]) -> Tensor:
    if picture.dtype == torch.uint8 and picture.ndim == 3 and picture.shape[0] in (1, 3) and picture.numel():
        if tuple(picture.shape) == (channels, image_size, image_size):
            return picture
        last = picture.detach().cpu().permute(1, 2, 0).contiguous().numpy()
        return torch.from_numpy(fit_array(last[..., 0] if last.shape[2] == 1 else last, image_size, channels))
    if picture.is_floating_point() and tuple(picture.shape) == (channels, image_size, image_size):
        return checked_range(picture.detach().float())
    raise InputError(
        f"a tensor is {_kind(picture)}; give uint8 of shape (1 or 3, H, W), or floats in [0, 1] of shape "
        f"({channels}, {image_size}, {image_size})"
    )


def checked_range(image: Tensor) -> Tensor:
    """Refuses floats outside of [0, 1], which are pictures of 0 to 255 or are normalized already.

    Raises:
        InputError: Some are outside, or are not numbers.
    """
    lowest, highest = float(image.min()), float(image.max())
    if not (lowest >= 0 and highest <= 1):
        raise InputError(
            f"a tensor of floats goes from {lowest:g} to {highest:g}; give pictures in [0, 1], which the net "
            "normalizes itself, or uint8"
        )
    return image


def _kind(picture: object) -> str:
    if isinstance(picture, np.ndarray | Tensor):
        return f"{str(picture.dtype).removeprefix('torch.')} of shape {tuple(picture.shape)}"
    return f"a {type(picture).__name__}"

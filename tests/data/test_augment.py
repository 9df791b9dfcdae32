from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pet_cifar.data.augment import RANDOM_NUMBERS, Augment
from pet_cifar.errors import InputError

# These are columns of the uniform numbers.
MIRROR, RIGHT, DOWN, BRIGHTNESS, CONTRAST, SATURATION, SCALE = range(7)
GRAY = np.array([0.299, 0.587, 0.114]).reshape(3, 1, 1)


def pictures(count: int = 6, channels: int = 3, size: int = 9) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def numbers(count: int = 6) -> Tensor:
    return torch.rand(count, RANDOM_NUMBERS, generator=torch.Generator().manual_seed(2))


def slow_shift(picture: NDArray[Any], uniform: NDArray[Any], translate: int, flip: bool) -> NDArray[Any]:
    """One picture of shape (C, H, W), the plain way: mirrored, then shifted."""
    _, height, width = picture.shape
    right = int(uniform[RIGHT] * (2 * translate + 1))
    down = int(uniform[DOWN] * (2 * translate + 1))
    mirrored = picture[:, :, ::-1] if flip and uniform[MIRROR] < 0.5 else picture
    padded = np.pad(mirrored, ((0, 0), (translate, translate), (translate, translate)), mode="reflect")
    return padded[:, down : down + height, right : right + width]


def slow_jitter(picture: NDArray[Any], uniform: NDArray[Any], augment: Augment) -> NDArray[Any]:
    result: NDArray[Any] = picture.astype(np.float64) * (1 + augment.brightness * (2 * uniform[BRIGHTNESS] - 1))
    mean = result.mean()
    result = mean + (result - mean) * (1 + augment.contrast * (2 * uniform[CONTRAST] - 1))
    if len(result) == 3:
        gray = (result * GRAY).sum(0, keepdims=True)
        result = gray + (result - gray) * (1 + augment.saturation * (2 * uniform[SATURATION] - 1))
    clipped: NDArray[Any] = np.clip(result, 0, 1)
    return clipped


def test_off_gives_the_input_itself() -> None:
    image = pictures()
    assert Augment()(image, numbers()) is image


def test_flip_mirrors_exactly_those_with_a_number_below_one_half() -> None:
    image, uniform = pictures(), numbers()
    uniform[:, MIRROR] = torch.tensor([0.0, 0.49999, 0.5, 0.99999, 0.2, 0.7])
    result = Augment(flip=True)(image, uniform)
    for row, mirrored in enumerate([True, True, False, False, True, False]):
        assert torch.equal(result[row], image[row].flip(-1) if mirrored else image[row])


@pytest.mark.parametrize("size", [5, 9])
@pytest.mark.parametrize("translate", [1, 2, 4])
def test_translate_is_a_window_of_the_mirrored_border(translate: int, size: int) -> None:
    image, uniform = pictures(40, size=size), numbers(40)
    uniform[:4, RIGHT] = torch.tensor([0.0, 1 - 2**-24, 0.0, 1 - 2**-24])
    uniform[:4, DOWN] = torch.tensor([0.0, 0.0, 1 - 2**-24, 1 - 2**-24])
    result = Augment(translate=translate)(image, uniform).numpy()
    for row in range(40):
        assert np.array_equal(result[row], slow_shift(image[row].numpy(), uniform[row].numpy(), translate, False))


def test_translate_reaches_every_shift_and_no_further() -> None:
    image = torch.arange(7.0).expand(1, 1, 7, 7)
    uniform = torch.full((1, RANDOM_NUMBERS), 0.5)
    middle = []
    for number in torch.linspace(0, 0.999, 50):
        uniform[:, RIGHT] = number
        middle.append(int(Augment(translate=2)(image, uniform)[0, 0, 0, 3]))
    assert sorted(set(middle)) == [1, 2, 3, 4, 5]


def test_flip_and_translate_together() -> None:
    image, uniform = pictures(30), numbers(30)
    result = Augment(flip=True, translate=3)(image, uniform).numpy()
    for row in range(30):
        assert np.array_equal(result[row], slow_shift(image[row].numpy(), uniform[row].numpy(), 3, True))


@pytest.mark.parametrize(
    "augment",
    [
        Augment(flip=True),
        Augment(translate=3),
        Augment(crop=0.5),
        Augment(crop=0.7, flip=True, translate=1),
        Augment(brightness=0.3, contrast=0.3, saturation=0.3),
    ],
)
def test_a_result_depends_only_on_the_picture_and_its_own_numbers(augment: Augment) -> None:
    image, uniform = pictures(), numbers()
    before = image.clone(), uniform.clone()
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    result = augment(image, uniform)
    assert torch.equal(augment(image, uniform), result)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(image, before[0])
    assert torch.equal(uniform, before[1])
    for row in range(len(image)):
        assert torch.allclose(augment(image[row : row + 1], uniform[row : row + 1])[0], result[row], atol=1e-6)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    assert torch.allclose(augment(image[order], uniform[order]), result[order], atol=1e-6)


@pytest.mark.parametrize(
    "augment",
    [
        Augment(translate=3),
        Augment(crop=0.5),
        Augment(brightness=0.5),
        Augment(contrast=0.5),
        Augment(saturation=0.5),
    ],
)
def test_equal_pictures_of_one_batch_are_changed_differently(augment: Augment) -> None:
    image = pictures(1).expand(6, -1, -1, -1).contiguous()
    result = augment(image, numbers())
    assert len({result[row].numpy().tobytes() for row in range(6)}) >= 4


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crop", [0.05, 0.5, 0.9])
def test_a_crop_keeps_shape_and_range(crop: float, channels: int) -> None:
    image = pictures(40, channels).round()
    result = Augment(crop=crop, flip=True, translate=2)(image, numbers(40))
    assert result.shape == image.shape
    assert result.min() >= 0
    assert result.max() <= 1
    assert not torch.equal(result, image)


def test_a_crop_of_a_constant_picture_is_constant() -> None:
    shades = torch.rand(20, 3, 1, 1, generator=torch.Generator().manual_seed(3))
    result = Augment(crop=0.4, translate=3)(shades.expand(20, 3, 9, 9).contiguous(), numbers(20))
    assert torch.allclose(result, shades.expand(20, 3, 9, 9), atol=1e-6)


def test_a_crop_of_the_whole_side_is_the_picture() -> None:
    image, uniform = pictures(), numbers()
    uniform[:, SCALE] = 1
    assert torch.allclose(Augment(crop=0.5)(image, uniform), image, atol=1e-5)


def test_a_crop_of_half_the_side_is_the_corner_scaled_up() -> None:
    image, uniform = pictures(4, size=8), numbers(4)
    uniform[:, SCALE] = 0
    uniform[:, RIGHT] = torch.tensor([0.0, 1.0, 0.0, 1.0])
    uniform[:, DOWN] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    result = Augment(crop=0.5)(image, uniform)
    for row, (top, left) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        corner = image[row : row + 1, :, top : top + 4, left : left + 4]
        expected = torch.nn.functional.interpolate(corner, size=(8, 8), mode="bilinear", align_corners=False)
        # At the inner borders the crop sees the next pixel, and the scaled corner does not.
        assert torch.allclose(result[row, :, 1:7, 1:7], expected[0, :, 1:7, 1:7], atol=1e-5)


def test_a_mirrored_crop_is_the_crop_mirrored() -> None:
    image, uniform = pictures(), numbers()
    uniform[:, MIRROR] = 0.2
    plain = Augment(crop=0.6)(image, uniform)
    assert torch.allclose(Augment(crop=0.6, flip=True)(image, uniform), plain.flip(-1), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "augment",
    [
        Augment(brightness=0.4),
        Augment(contrast=1.0),
        Augment(saturation=1.0),
        Augment(brightness=1.0, contrast=0.8, saturation=0.6),
    ],
)
def test_jitter_is_what_the_plain_formula_gives(augment: Augment, channels: int) -> None:
    image, uniform = pictures(20, channels), numbers(20)
    result = augment(image, uniform).numpy()
    for row in range(20):
        expected = slow_jitter(image[row].numpy(), uniform[row].numpy(), augment)
        np.testing.assert_allclose(result[row], expected, atol=2e-6)
    assert result.min() >= 0
    assert result.max() <= 1


def test_saturation_leaves_gray_alone() -> None:
    gray = pictures(channels=1)
    assert torch.equal(Augment(saturation=1.0)(gray, numbers()), gray)
    three = gray.expand(-1, 3, -1, -1)
    assert torch.allclose(Augment(saturation=1.0)(three, numbers()), three, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"translate": -1}, "translate is -1"),
        ({"crop": 0.0}, r"crop is 0\.0"),
        ({"crop": 1.1}, r"crop is 1\.1"),
        ({"crop": float("nan")}, "crop is nan"),
        ({"brightness": -0.1}, r"brightness is -0\.1"),
        ({"contrast": 1.5}, r"contrast is 1\.5"),
        ({"saturation": 2.0}, r"saturation is 2\.0"),
        ({"saturation": float("nan")}, "saturation is nan"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name}; it is "):
        Augment(**arguments)


def test_an_unknown_flip_is_told_in_a_line() -> None:
    with pytest.raises(InputError, match="^flip is 'alternate'; it is one of False, True, alternating; did you"):
        Augment(flip="alternate")  # type: ignore[arg-type]


def test_a_shift_by_more_than_the_picture_is_refused() -> None:
    with pytest.raises(InputError, match=r"augment\.translate is 9, more than a picture of 9 x 9 holds"):
        Augment(translate=9)(pictures(), numbers())
    assert Augment(translate=8)(pictures(), numbers()).shape == pictures().shape


CUTOUT = 7


@pytest.mark.parametrize("size", [1, 3, 9])
def test_cutout_makes_one_square_gray_anywhere_inside(size: int) -> None:
    image, uniform = pictures(200), numbers(200)
    uniform[:2, CUTOUT] = torch.tensor([0.0, 1 - 2**-24])
    result = Augment(cutout=size)(image, uniform)
    corners = set()
    for row in range(200):
        place = int(uniform[row, CUTOUT].item() * (9 - size + 1) ** 2)
        top, left = divmod(place, 9 - size + 1)
        expected = image[row].clone()
        expected[:, top : top + size, left : left + size] = 0.5
        assert torch.equal(result[row], expected)
        corners.add((top, left))
    assert (0, 0) in corners
    assert (9 - size, 9 - size) in corners
    assert len(corners) > 0.8 * min(200, (9 - size + 1) ** 2)


def test_cutout_larger_than_the_picture_is_told() -> None:
    with pytest.raises(InputError, match="augment.cutout is 10, more than a picture of 9 x 9 holds"):
        Augment(cutout=10)(pictures(), numbers())
    with pytest.raises(InputError, match="^cutout is -1"):
        Augment(cutout=-1)

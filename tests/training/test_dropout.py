import pytest
import torch
from torch import Tensor

from pet_cifar.training.dropout import Dropout, hashed, number_pictures


def dropped(p: float, image: Tensor, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    result: Tensor = Dropout(p).train()(image)
    return result


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_is_dropped_and_the_mean_is_kept(p: float, dtype: torch.dtype) -> None:
    result = dropped(p, torch.ones(401, 1001, dtype=dtype)).float()
    kept = result != 0
    assert (1 - kept.double().mean()).item() == pytest.approx(p, abs=0.004)
    torch.testing.assert_close(result[kept], torch.full_like(result[kept], 1 / (1 - p)), atol=1e-3, rtol=5e-3)
    assert result.mean().item() == pytest.approx(1, abs=0.03)


def test_neighbors_are_dropped_independently() -> None:
    kept = (dropped(0.5, torch.ones(2**18)) != 0).double() - 0.5
    for distance in (1, 2, 3, 4, 5, 8):
        assert abs((kept[:-distance] * kept[distance:]).mean().item()) < 0.003
    # All four lanes of a number are used, and all bits of a number.
    for lane in range(4):
        assert kept[lane::4].mean().item() == pytest.approx(0, abs=0.006)


def test_it_follows_from_the_seed_and_is_new_at_every_call() -> None:
    image = torch.ones(999)
    assert torch.equal(dropped(0.5, image), dropped(0.5, image))
    assert not torch.equal(dropped(0.5, image), dropped(0.5, image, seed=1))
    layer = Dropout(0.5).train()
    assert not torch.equal(layer(image), layer(image))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_goes_where_the_values_went(memory_format: torch.memory_format) -> None:
    image = torch.rand(3, 5, 4, 6).contiguous(memory_format=memory_format).requires_grad_(True)
    result = dropped(0.25, image)
    assert result.is_contiguous(memory_format=memory_format)
    result.sum().backward()  # type: ignore[no-untyped-call]
    assert image.grad is not None
    torch.testing.assert_close(result, image * image.grad)
    assert 0.1 < 1 - image.grad.count_nonzero().item() / image.numel() < 0.4


def test_odd_layouts_and_odd_shares() -> None:
    image = torch.rand(6, 7).t()
    assert dropped(0.5, image).shape == (7, 6)
    assert torch.equal(dropped(0.0, image), image)
    assert not dropped(1.0, image).any()
    assert torch.equal(Dropout(0.5).eval()(image), image)
    with pytest.raises(ValueError, match="dropout probability"):
        Dropout(1.5)


def of_pictures(image: Tensor, first: int = 0, seed: int = 5, calls: int = 1) -> Tensor:
    layer = Dropout(0.5).train()
    number_pictures([layer], seed, first)
    for _ in range(calls):
        result: Tensor = layer(image)
    return result


@pytest.mark.parametrize("shape", [(8, 7), (8, 3, 5, 6)])
def test_a_pictures_numbers_do_not_depend_on_the_process(shape: tuple[int, ...]) -> None:
    image = torch.rand(shape)
    whole = of_pictures(image)
    assert torch.equal(whole, torch.cat([of_pictures(image[:3]), of_pictures(image[3:], first=3)]))
    if image.dim() == 4:
        last = image.contiguous(memory_format=torch.channels_last)
        shares = [of_pictures(last[:3]), of_pictures(last[3:], first=3)]
        assert torch.equal(of_pictures(last), torch.cat(shares))


def test_pictures_steps_layers_and_calls_have_numbers_of_their_own() -> None:
    image = torch.ones(4, 999)
    kept = [of_pictures(image), of_pictures(image, seed=6), of_pictures(image, calls=2), of_pictures(image, first=4)]
    layers = [Dropout(0.5).train(), Dropout(0.5).train()]
    number_pictures(layers, 5, 0)
    kept += [layers[1](image)]
    rows = torch.cat(kept) != 0
    agree = (rows[:, None] == rows[None]).double().mean(2)
    others = agree[~torch.eye(len(rows), dtype=torch.bool)]
    assert (others - 0.5).abs().max() < 0.08


def test_hashed_numbers_are_as_good_as_drawn_ones() -> None:
    numbers = hashed(torch.tensor([1, 2, -(2**62)]), 2**16)
    lanes = numbers.view(torch.int16).reshape(3, -1).double() / 2**15
    assert lanes.mean(1).abs().max() < 0.005
    assert (lanes.var(1) - 1 / 3).abs().max() < 0.005
    for distance in (1, 2, 3, 4, 8):
        assert (lanes[:, :-distance] * lanes[:, distance:]).mean(1).abs().max() < 0.005
    assert (lanes[0] * lanes[1]).mean().abs() < 0.005
    # These are the numbers that the reference implementation gives for the seed 0.
    assert [number % 2**64 for number in hashed(torch.tensor([0]), 2)[0].tolist()] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
    ]

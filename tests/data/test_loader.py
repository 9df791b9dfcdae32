import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from pet_cifar.data.augment import RANDOM_NUMBERS
from pet_cifar.data.loader import Batch, BatchLoader
from pet_cifar.data.pixels.cache import ArrayPixels
from pet_cifar.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (500, 1, 2, 2), np.uint8)
LABELS = np.arange(500) % 7


def loader(count: int = 50, batch_size: int = 8, shuffle: bool = True, **options: Any) -> BatchLoader:
    return BatchLoader(ArrayPixels(PIXELS[:count]), LABELS[:count], batch_size, shuffle=shuffle, **options)


def same(one: Batch, other: Batch) -> bool:
    names = ("image", "label", "row", "uniform")
    return one.seed == other.seed and all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def equal(ones: Sequence[Batch], others: Sequence[Batch]) -> bool:
    return len(ones) == len(others) and all(map(same, ones, others))


def rows(batches: Sequence[Batch]) -> list[int]:
    return [row for batch in batches for row in batch.row.tolist()]


# What a batch holds


@pytest.mark.parametrize("shuffle", [False, True])
def test_images_labels_and_rows_belong_together(shuffle: bool) -> None:
    for batch in loader(shuffle=shuffle):
        number = batch.row.numpy()
        assert np.array_equal(batch.image.numpy(), PIXELS[number])
        assert np.array_equal(batch.label.numpy(), LABELS[number])
        assert batch.image.dtype == torch.uint8
        assert batch.label.dtype == batch.row.dtype == torch.int64
        assert batch.uniform.dtype == torch.float32
        assert batch.uniform.shape == (len(number), RANDOM_NUMBERS)
        assert 0 <= batch.seed < 2**63


def test_training_leaves_the_incomplete_batch_out_and_repeats_nothing() -> None:
    batches = list(loader(50, 8))
    assert len(batches) == len(loader(50, 8)) == 6
    assert all(len(batch.row) == 8 for batch in batches)
    assert len(set(rows(batches))) == 48


def test_training_numbers_are_uniform_and_all_different() -> None:
    drawn = torch.cat([batch.uniform for batch in loader(500, 50)]).flatten()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.02
    assert len(set(drawn.tolist())) > 0.99 * len(drawn)


def test_steps_have_seeds_of_their_own() -> None:
    seeds = [batch.seed for epoch in range(3) for batch in loader(epoch=lambda epoch=epoch: epoch)]
    assert len(set(seeds)) == len(seeds)


def test_evaluation_keeps_the_order_and_draws_nothing() -> None:
    batches = list(loader(50, 8, shuffle=False))
    assert rows(batches) == list(range(50))
    assert all(not batch.uniform.any() for batch in batches)


def test_a_training_set_smaller_than_a_batch_is_one_batch(caplog: pytest.LogCaptureFixture) -> None:
    (batch,) = loader(5, 64)
    assert sorted(batch.row.tolist()) == list(range(5))
    assert [len(list(loader(7, 64, world_size=2, rank=rank))) for rank in range(2)] == [1, 1]
    assert caplog.messages[0].startswith("batch_size is 64: an epoch is one step of all 5 training pictures")
    caplog.clear()
    loader(5, 8, rank=1, world_size=2)
    loader(8, 8)
    loader(5, 8, shuffle=False)
    assert not caplog.messages


def test_an_evaluation_set_smaller_than_a_batch_is_one_batch() -> None:
    (batch,) = loader(5, 64, shuffle=False)
    assert batch.row.tolist() == list(range(5))


# Workers, restarts, purity


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("num_workers", [1, 3, 20])
def test_the_number_of_workers_changes_nothing(num_workers: int, shuffle: bool) -> None:
    expected = list(loader(100, 8, shuffle, seed=3))
    assert equal(list(loader(100, 8, shuffle, seed=3, num_workers=num_workers)), expected)


@pytest.mark.parametrize("num_workers", [0, 3])
def test_a_restart_from_any_step_gives_the_rest(num_workers: int) -> None:
    whole = list(loader(seed=4, epoch=lambda: 2))
    for step in range(len(whole)):
        first = loader(seed=4, epoch=lambda: 2, num_workers=num_workers)
        batches = iter(first)
        for _ in range(step):
            next(batches)
        state = first.state_dict()
        batches.close()  # type: ignore[attr-defined]
        second = loader(seed=4, epoch=lambda: 2, num_workers=num_workers)
        second.load_state_dict(state)
        assert equal(list(second), whole[step:])
        assert equal(list(second), whole), "the epoch after the restart is a whole one"


def test_the_state_of_a_finished_epoch_starts_the_next_one() -> None:
    first = loader()
    batches = list(first)
    state = first.state_dict()
    second = loader(epoch=lambda: 1)
    second.load_state_dict(state)
    assert len(list(second)) == len(batches)


def test_a_restart_counts_on_from_where_it_was() -> None:
    first = loader()
    first.load_state_dict({"step": 3})
    next(iter(first))
    assert first.state_dict() == {"step": 4}


def test_the_state_right_after_a_restart_is_the_restored_one() -> None:
    first = loader()
    first.load_state_dict({"step": 3})
    assert first.state_dict() == {"step": 3}


def test_a_batch_does_not_depend_on_what_was_loaded_before() -> None:
    one = loader(seed=5)
    places = [(epoch, step) for epoch in range(3) for step in range(len(one))]
    expected = {place: one.load(*place) for place in places}
    random.Random(0).shuffle(places)
    other = loader(seed=5, num_workers=2)
    for place in places:
        assert same(other.load(*place), expected[place])
    assert equal(list(loader(seed=5, epoch=lambda: 1)), [expected[1, step] for step in range(len(one))])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_global_random_numbers_are_neither_used_nor_touched(num_workers: int) -> None:
    def states() -> list[Any]:
        return [torch.get_rng_state().tolist(), str(np.random.get_state(legacy=False)), random.getstate()]

    expected = list(loader())
    torch.manual_seed(1)
    np.random.seed(2)
    random.seed(3)
    before = states()
    assert equal(list(loader(num_workers=num_workers)), expected)
    assert states() == before


def test_epochs_and_seeds_differ() -> None:
    orders = {
        (seed, epoch): tuple(rows(list(loader(seed=seed, epoch=lambda epoch=epoch: epoch))))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(set(orders.values())) == 9
    drawn = {loader(seed=seed).load(epoch, step).uniform.numpy().tobytes() for seed, epoch, step in np.ndindex(3, 3, 3)}
    assert len(drawn) == 27


def test_order_and_step_seeds_do_not_share_a_stream() -> None:
    """Seed 0, epoch 1 and seed 1, epoch 0 must not be mistaken for each other."""
    assert rows(list(loader(seed=0, epoch=lambda: 1))) != rows(list(loader(seed=1, epoch=lambda: 0)))


def test_the_epoch_is_asked_for_at_every_start() -> None:
    now = 0
    one = loader(epoch=lambda: now)
    first = rows(list(one))
    now = 1
    assert rows(list(one)) == rows(list(loader(epoch=lambda: 1))) != first


def test_a_loader_that_is_left_early_starts_anew() -> None:
    one = loader(num_workers=3)
    for _ in one:
        break
    assert len(list(one)) == len(one)


def test_a_picture_that_cannot_be_had_stops_the_loader() -> None:
    class Broken:
        def take(self, rows: Any) -> torch.Tensor:
            raise ValueError("gone")

    for num_workers in (0, 2):
        with pytest.raises(ValueError, match="gone"):
            list(BatchLoader(Broken(), LABELS[:50], 8, num_workers=num_workers))


# Several processes


@pytest.mark.parametrize(("world_size", "count"), [(2, 50), (3, 50), (3, 97), (2, 16)])
def test_processes_together_see_what_one_would(world_size: int, count: int) -> None:
    one = list(loader(count, 4 * world_size, seed=6))
    several = [list(loader(count, 4, seed=6, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert {len(batches) for batches in several} == {len(one)}
    for step, batch in enumerate(one):
        shares = [batches[step] for batches in several]
        for name in ("image", "label", "row", "uniform"):
            assert torch.equal(torch.cat([getattr(share, name) for share in shares]), getattr(batch, name))
        assert len({share.seed for share in shares}) == world_size
        assert shares[0].seed == batch.seed


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 64])
def test_evaluation_sees_every_picture_once(world_size: int, batch_size: int) -> None:
    for count in (*range(world_size, world_size + 12), 97):
        if batch_size == 1 and count % world_size:
            continue  # test_evaluation_batches_are_never_empty shows that it is refused
        several = [
            list(loader(count, batch_size, shuffle=False, rank=rank, world_size=world_size))
            for rank in range(world_size)
        ]
        assert sorted(row for batches in several for row in rows(batches)) == list(range(count))
        assert len({len(batches) for batches in several}) == 1
        sizes = [len(batch.row) for batches in several for batch in batches]
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1
        lengths = {
            len(loader(count, batch_size, shuffle=False, rank=r, world_size=world_size)) for r in range(world_size)
        }
        assert lengths == {len(several[0])}


def test_evaluation_batches_are_never_empty() -> None:
    with pytest.raises(InputError, match="batch_size of 2"):
        loader(3, 1, shuffle=False, rank=1, world_size=2)


@pytest.mark.parametrize("shuffle", [False, True])
def test_fewer_pictures_than_processes_are_refused(shuffle: bool) -> None:
    with pytest.raises(InputError, match="3 pictures cannot be shared by 4 processes; use fewer processes"):
        loader(3, 8, shuffle, world_size=4)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_named(batch_size: int) -> None:
    with pytest.raises(InputError, match=f"batch_size is {batch_size}; .* at least 1"):
        loader(50, batch_size)

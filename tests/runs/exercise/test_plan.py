"""The plan of the exercise: its configs are there, its commands are taken, and the quick mode is quick."""

from typing import Any

import pytest
from lightning.pytorch.cli import LightningCLI

from pet_cifar.callbacks.run_record import net_sizes
from pet_cifar.cli.config_files import shipped_configs
from pet_cifar.cli.main import main
from pet_cifar.runs.exercise.nets import net_of, read_config
from pet_cifar.runs.exercise.plan import (
    FULL,
    ITEMS,
    MODES,
    PICTURES_PER_CLASS,
    QUICK,
    THEN,
    Mode,
    Planned,
    runs_of,
    times_shorter,
)

PLANNED = runs_of(QUICK, "data", "weights.safetensors", {}, "runs")
CIFAR10_PICTURES = {"train": 45_000.0, "val": 5_000.0, "test": 10_000.0}


class Parsed(BaseException):
    """Ends a command as soon as its options are known to be right."""


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_mode_has_a_length_for_every_item_and_no_other(mode: Mode) -> None:
    assert set(mode.lengths) == {item.config for item in ITEMS}
    assert set(mode.lengths) <= set(shipped_configs())


@pytest.mark.parametrize("one", [one for one in PLANNED if one.seed == 0], ids=lambda one: one.item.config)
def test_the_words_of_a_run_are_taken_by_fit(one: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: Any, **kwargs: Any) -> None:
        raise Parsed

    monkeypatch.setattr(LightningCLI, "instantiate_classes", stop)
    with pytest.raises(Parsed):
        main(["fit", *one.words])


def test_the_three_nets_have_the_same_budget_and_several_seeds() -> None:
    for mode in MODES.values():
        lengths = [mode.lengths[name] for name in THEN]
        assert len(set(lengths)) == 1
        assert lengths[0].seeds >= 2


def test_a_smaller_set_is_taken_as_a_whole() -> None:
    (few, many) = (runs_of(FULL, "data", "imagenet", {"cats_dogs": count}, "runs")[0].words for count in (20, 9000))
    assert few[few.index("--data.images_per_class") + 1] == "20"
    assert many[many.index("--data.images_per_class") + 1] == str(PICTURES_PER_CLASS)


def test_the_first_seed_of_all_comes_before_the_second_of_any() -> None:
    seeds = [one.seed for one in PLANNED]
    assert seeds == sorted(seeds)
    assert len({(one.item.config, one.seed) for one in PLANNED}) == len(PLANNED)


def test_the_page_says_how_much_shorter_a_run_is() -> None:
    assert all(times_shorter(item.config, FULL) == 1 for item in ITEMS)
    assert times_shorter("cifar10_plain", QUICK) == pytest.approx(100)
    assert all(times_shorter(item.config, QUICK) >= 1 for item in ITEMS)


def test_the_arithmetic_of_the_quick_mode_fits_into_22_minutes() -> None:
    """150 GFLOP a second is what two slow cores make; training costs three times the way forward."""
    seconds = 120.0  # for looking for the pictures, and for drawing the page
    for item in ITEMS:
        length = QUICK.lengths[item.config]
        config = read_config(shipped_configs()[item.config])
        gflop = net_sizes(net_of(config))["forward_gflop"]
        counts: dict[str, float] = dict(CIFAR10_PICTURES)
        if item.dataset == "cats_dogs":
            total = 2 * (length.per_class or PICTURES_PER_CLASS)
            counts = {"train": 0.81 * total, "val": 0.09 * total, "test": 0.1 * total}
        if config["model"]["init_args"].get("cache_features"):
            work = sum(counts.values())
        else:
            work = length.epochs * (3 * length.share * counts["train"] + counts["val"]) + counts["test"]
        seconds += length.seeds * (15 + work * gflop / 150)
    assert seconds < 22 * 60

"""The readers stand any bytes, and the table hides nothing; with the mark ``torture``, one trial of each damage."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from pet_cifar.errors import InputError
from tests.cli.kills import Apart
from tests.torture import stops, table
from tests.torture.__main__ import DAMAGES
from tests.torture.files import mutated
from tests.torture.targets import TARGETS
from tests.torture.trials import Outcome, Whole, before, command, made_whole

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_takes_its_seeds_and_stands_what_is_made_of_them(name: str) -> None:
    target, rng = TARGETS[name], random.Random(7)
    seeds = target.seeds()
    for content in [*seeds, *(mutated(rng, seeds) for _ in range(100)), b"", b"\0"]:
        target.check(content)


def test_the_table_counts_what_was_lost() -> None:
    found = {
        "a kill": [Outcome(notes={"twice": 1}), Outcome(notes={"twice": 2})],
        "a picture": [Outcome(times=1000), Outcome(times=500, lost=["one", "two"])],
    }
    assert table.table(found).splitlines()[2:] == [
        "| a kill (twice: 3) | 2 | nothing |",
        "| a picture | 1,500 | **1 trials** |",
    ]
    assert "seed 3" in table.conditions(3, 1000.0, 2000.0)


def test_only_what_lies_between_the_marks_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write("new", page)
    assert page.read_text() == f"before\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n"
    page.write_text(f"before\n{table.BEGIN}\nold\n")
    with pytest.raises(InputError, match="page.md lacks"):
        table.write("new", page)
    assert table.BEGIN in table.PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Whole]:
    """The runs that nothing stops."""
    folder = tmp_path_factory.mktemp("whole")
    found = {}
    for way in ("pictures", "epochs", "steps", "validations", "ranks"):

        def alone(args: Sequence[str], way: str = way) -> list[Apart]:
            return [command(args, before(way))]

        found[way] = made_whole(way, folder, stops.together if way == "ranks" else alone)
    return found


@pytest.mark.torture
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_loses_nothing(name: str, wholes: dict[str, Whole]) -> None:
    assert DAMAGES[name].trial(random.Random(f"test {name}"), wholes).lost == []

"""The table of docs/survival.md: what was done, how many times, and what was lost."""

import datetime
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pet_cifar.errors import InputError
from pet_cifar.hardware import cores, processor_name
from tests.torture.trials import Outcome

HOME = Path(__file__).parents[2]
PAGE = HOME / "docs" / "survival.md"
BEGIN, END = "<!-- made by make torture -->", "<!-- end of what make torture has made -->"


def table(outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """The rows, one for each damage; what was lost is counted and never hidden."""
    lines = ["| what was done | how many times | what was lost |", "| --- | --- | --- |"]
    for title, found in outcomes.items():
        notes: Counter[str] = Counter()
        for outcome in found:
            notes.update(outcome.notes)
        told = "; ".join(f"{what}: {count}" for what, count in sorted(notes.items()))
        times = sum(outcome.times for outcome in found)
        lost = sum(bool(outcome.lost) for outcome in found)
        cells = (f"{title} ({told})" if told else title, f"{times:,}", f"**{lost} trials**" if lost else "nothing")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def conditions(seed: int, seconds: float, used: float) -> str:
    """When, on what and for how long the damage was done.

    Args:
        seed: The seed of all trials.
        seconds: The seconds that went by.
        used: The seconds that processors have computed.
    """
    commit = subprocess.run(
        ["git", "-C", str(HOME), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"Made on {datetime.datetime.now(datetime.UTC):%Y-%m-%d} on {cores()} cores of {processor_name()}, at commit "
        f"{commit or 'unknown'}, with seed {seed}, in {seconds:,.0f} s, in which processors computed for {used:,.0f} s."
    )


def write(text: str, page: Path = PAGE) -> None:
    """Puts a text between the marks of the page.

    Raises:
        InputError: The page has not both marks.
    """
    content = page.read_text(encoding="utf-8")
    head, begin, rest = content.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{page} lacks {BEGIN if not begin else END}; put both marks where the table belongs")
    page.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}", encoding="utf-8")

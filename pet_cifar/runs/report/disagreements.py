"""The pictures that one experiment has right and another wrong, with what each net looked at."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from pet_cifar.callbacks.images.drawing import PixelArray, channels_last
from pet_cifar.callbacks.images.grad_cam import check_captum
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.manifest import ImageRecord
from pet_cifar.data.pixels.decode import DecodeError, decode_whole
from pet_cifar.doctor.page import as_data_uri
from pet_cifar.errors import InputError
from pet_cifar.names import printable, without_codes
from pet_cifar.runs.directory import find_checkpoint, read_checkpoint
from pet_cifar.runs.drawings import enlarged
from pet_cifar.runs.experiments import Experiment
from pet_cifar.runs.explanation import explained_layer, overlay_of
from pet_cifar.runs.load import load
from pet_cifar.runs.misleading import reasons_against
from pet_cifar.runs.tested_run import TestedRun
from pet_cifar.training.classifier import ImageClassifier

SIDE = 168
"""The longer side of a picture in pixels."""
EACH = 6
"""The number of pictures of each direction of a pair, and half of those of a single experiment."""
MOST_PAIRS = 3
"""The number of pairs, of the most accurate experiment with the next ones."""
MOST_BYTES = 1_500_000
"""The size of all pictures together, as text within the page."""

OpenData = Callable[[Mapping[str, Any]], ImageDataModule]
"""Opens the data of a run, given what its checkpoint holds; raises an `InputError` where it is not there."""


class Answer(NamedTuple):
    """What an experiment says of a picture.

    Attributes:
        experiment: Its name.
        is_right: Whether its first run is right.
        predicted: The class that the first run gives.
        probability: The probability of that class.
        right_runs: How many of its runs are right.
        runs: How many runs it has.
        overlay: The picture with what speaks for ``explained`` in red, as a data URI; empty where there is none.
        explained: The class that the overlay explains.
    """

    experiment: str
    is_right: bool
    predicted: str
    probability: float
    right_runs: int
    runs: int
    overlay: str = ""
    explained: str = ""


@dataclass(frozen=True)
class Shown:
    """One picture of the page: its path, its class, itself as a data URI, and the answers to it."""

    path: str
    label: str
    picture: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Group:
    """Pictures of one kind.

    Attributes:
        title: What they have in common.
        count: How many there are, shown or not.
        pictures: Those that are shown, the most confident first.
    """

    title: str
    count: int
    pictures: list[Shown]


@dataclass
class _Opened:
    """A run that pictures can be asked of: its records by path, and its net with the layer that explains it."""

    data: ImageDataModule
    records: dict[str, ImageRecord]
    net: ImageClassifier | None = None
    layer: str = ""


class Gallery:
    """Finds and draws the pictures on which experiments disagree.

    Args:
        experiments: The experiments, the most accurate first.
        open_data: Opens the data of a run.

    Attributes:
        missing: A line for each thing that could not be drawn.
    """

    def __init__(self, experiments: Sequence[Experiment], open_data: OpenData) -> None:
        self.experiments = list(experiments)
        self.missing: list[str] = []
        self._open_data = open_data
        self._opened: dict[str, _Opened | None] = {}
        self._bytes = 0

    def groups(self) -> list[Group]:
        """The groups of pictures; none where no picture can be read."""
        found: list[Group] = []
        plans = list(self._plans())
        total = sum(len(rows) for *_, rows in plans)
        with tqdm(total=total, desc="drawing disagreements", unit="", disable=None, leave=False) as bar:
            for title, count, order, chosen, rows in plans:
                shown = []
                for row in rows.tolist():
                    bar.update()
                    if (one := self._picture(order, chosen, row)) is not None:
                        shown.append(one)
                if shown:
                    found.append(Group(title, count, shown))
        return found

    def _plans(self) -> Iterator[tuple[str, int, TestedRun, list[Experiment], NDArray[np.int64]]]:
        """Each group's title and size, the run in whose order its rows count, its experiments, and the rows."""
        best, *others = self.experiments
        if not others:
            rows = np.flatnonzero(~best.runs[0].right)
            yield "wrong", len(rows), best.runs[0], [best], _surest_first(rows, -_trust(best))[: 2 * EACH]
            return
        pairs = [one for one in others if reasons_against(best.runs[0], one.runs[0]) is None]
        for other in pairs[:MOST_PAIRS]:
            ours, theirs = _trust(best), _trust(other)[other.runs[0].rows_in_order_of(best.runs[0])]
            right, their_right = best.rights[0], other.rights[0][other.runs[0].rows_in_order_of(best.runs[0])]
            for first, second, rows, gap in (
                (best, other, np.flatnonzero(right & ~their_right), ours - theirs),
                (other, best, np.flatnonzero(~right & their_right), theirs - ours),
            ):
                title = f"{first.name} is right, {second.name} is wrong"
                chosen = _surest_first(rows, gap)[:EACH]
                yield title, len(rows), best.runs[0], [first, second], chosen

    def _picture(self, order: TestedRun, experiments: Sequence[Experiment], row: int) -> Shown | None:
        """One picture with the answers of the experiments; None where none of them can read it, or there is no room."""
        if self._bytes > MOST_BYTES:
            self._miss(f"no more pictures are drawn than fit {MOST_BYTES / 1e6:g} MB")
            return None
        path, look, answers = order.paths[row], None, []
        for one in experiments:
            own_row = int(one.runs[0].rows_in_order_of(order)[row])
            answer, opened = _answer(one, own_row), self._open(one)
            if opened is not None:
                try:
                    look = _look(opened, path) if look is None else look
                    answer = self._explained(answer, opened, path, look, one)
                except (DecodeError, OSError, ValueError) as error:
                    self._miss(f"{printable(path)} cannot be read: {printable(str(error))}")
            answers.append(answer)
        if look is None:
            return None
        picture = as_data_uri(Image.fromarray(look))
        self._bytes += len(picture) + sum(len(answer.overlay) for answer in answers)
        return Shown(printable(path), order.class_names[int(order.labels[row])], picture, tuple(answers))

    def _explained(self, answer: Answer, opened: _Opened, path: str, look: PixelArray, one: Experiment) -> Answer:
        if opened.net is None:
            return answer
        pixels = torch.from_numpy(opened.data.read(opened.records[path]))
        sheet, explained = overlay_of(opened.net, opened.layer, pixels, look)
        return answer._replace(
            overlay=as_data_uri(Image.fromarray(sheet)), explained=one.runs[0].class_names[explained]
        )

    def _open(self, one: Experiment) -> _Opened | None:
        if one.name not in self._opened:
            self._opened[one.name] = self._open_first(one)
        return self._opened[one.name]

    def _open_first(self, one: Experiment) -> _Opened | None:
        """Opens the data and the net of an experiment's first run, and notes what is not there."""
        run = one.runs[0]
        try:
            file = find_checkpoint(run.directory)
            checkpoint = read_checkpoint(file)
        except InputError as error:
            reason = str(error).removeprefix("--run ").removeprefix("--ckpt_path ")
            self._miss(f"{run.name}: what it says of pictures cannot be shown: {reason}")
            return None
        try:
            data = self._open_data(checkpoint)
            records = {without_codes(record.path): record for record in data.splits["test"]}
            if absent := next((path for path in run.paths if path not in records), None):
                raise InputError(f"there is no test picture {printable(absent)}")
        except InputError as error:
            advice = "" if "--data.root" in str(error) else "; give --data.root DIR where they are now"
            self._miss(f"{run.name}: its pictures cannot be shown: {error}{advice}")
            return None
        opened = _Opened(data, records)
        try:
            check_captum("Grad-CAM")
            net = load(file).module
            opened.layer = explained_layer(net)
            opened.net = net
        except InputError as error:
            self._miss(f"{run.name}: its maps are missing: {error}")
        return opened

    def _miss(self, line: str) -> None:
        if line not in self.missing:
            self.missing.append(line)


def _trust(one: Experiment) -> NDArray[np.float64]:
    """The probability of each picture's true class, on the mean over the runs, in the order of the first run."""
    first = one.runs[0]
    rows = [run.rows_in_order_of(first) for run in one.runs]
    true = [run.probabilities[own, run.labels[own]] for run, own in zip(one.runs, rows, strict=True)]
    return np.asarray(np.mean(true, axis=0))


def _surest_first(rows: NDArray[np.int64], gap: NDArray[np.float64]) -> NDArray[np.int64]:
    return rows[np.argsort(-gap[rows], kind="stable")]


def _answer(one: Experiment, row: int) -> Answer:
    first = one.runs[0]
    predicted = int(first.predicted[row])
    return Answer(
        one.name,
        bool(first.right[row]),
        first.class_names[predicted],
        float(first.probabilities[row, predicted]),
        int(one.rights[:, row].sum()),
        len(one.runs),
    )


def _look(opened: _Opened, path: str) -> PixelArray:
    """A picture to look at, shape (H, W, 3): the file in its own shape, or what the net takes of it."""
    record = opened.records[path]
    file = opened.data.folder / record.path
    if file.is_file():
        return decode_whole(file.read_bytes(), SIDE)
    return enlarged(channels_last(opened.data.read(record)), SIDE)

"""Wrong labels that are planted are found, and the interval of their share covers the truth."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pet_cifar.doctor.label_errors import find_label_errors, share_of_errors


def clouds(seed: int, count: int, classes: int, distance: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points around a center for each class, in 20 dimensions."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(classes, 20)) * distance
    labels = rng.integers(0, classes, count)
    return centers[labels] + rng.normal(size=(count, 20)), labels


def planted(seed: int, labels: NDArray[np.int64], classes: int, share: float) -> NDArray[np.int64]:
    """The labels, of which a share is another one."""
    rng = np.random.default_rng([seed, 1])
    wrong = rng.choice(len(labels), round(share * len(labels)), replace=False)
    changed = labels.copy()
    changed[wrong] = (changed[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return changed


@pytest.mark.parametrize("classes", [2, 5])
def test_planted_errors_are_ranked_first(classes: int) -> None:
    features, labels = clouds(0, 1000, classes, 1.5)
    changed = planted(0, labels, classes, 0.03)
    found = find_label_errors(features, changed, classes)
    wrong = np.flatnonzero(changed != labels)
    first = found.suspects[: len(wrong)]
    assert len(set(first.tolist()) & set(wrong.tolist())) >= 0.95 * len(wrong)
    assert (found.predicted[first] == labels[first]).mean() >= 0.95
    assert np.all(np.diff(found.margin[found.suspects]) >= 0)
    assert found.accuracy == pytest.approx(1 - len(found.suspects) / 1000)
    assert not found.is_upper_limit


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1])
def test_the_interval_covers_the_truth(share: float) -> None:
    covered = []
    for seed in range(200):
        features, labels = clouds(seed, 300, 3, 1.5)
        found = find_label_errors(features, planted(seed, labels, 3, share), 3)
        covered.append(found.low <= round(share * 300) / 300 <= found.high)
    assert np.mean(covered) >= 0.93


def test_classes_that_look_alike_give_an_upper_limit() -> None:
    features, labels = clouds(0, 1000, 5, 0.3)
    found = find_label_errors(features, labels, 5)
    assert found.is_upper_limit
    assert found.high > 0


def test_mistakes_of_the_head_are_no_wrong_labels() -> None:
    """Contradictions that become rarer the more certain the head is are its own mistakes."""
    rng = np.random.default_rng(0)
    certainty = rng.random(20_000)
    mistakes = rng.random(20_000) < 0.4 * np.clip(1 - 1.6 * certainty, 0, 1)
    wrong = rng.random(20_000) < 0.02
    share, low, high = share_of_errors(certainty, mistakes ^ wrong)
    assert low <= wrong.mean() <= high
    assert share < (mistakes ^ wrong).mean() / 2


@pytest.mark.parametrize(("count", "classes"), [(400, 2), (1000, 10), (6, 2)])
def test_features_that_know_nothing_give_no_more_than_an_upper_limit(count: int, classes: int) -> None:
    labels = np.random.default_rng(0).integers(0, classes, count)
    labels[:classes] = np.arange(classes)
    features = np.random.default_rng(1).normal(size=(count, 30))
    assert find_label_errors(features, labels, classes).is_upper_limit

"""The data's folder by option and environment, and the place for what is derived from the data."""

from pathlib import Path

import pytest

from pet_cifar.data.root import data_root, state_directory


def test_the_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PET_CIFAR_DATA", "/from/environment")
    assert data_root("given") == Path("given")
    assert data_root(None) == Path("/from/environment")
    monkeypatch.delenv("PET_CIFAR_DATA")
    assert data_root(None) == Path("data")


def test_an_empty_variable_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PET_CIFAR_DATA", "")
    assert data_root(None) == Path("data")


@pytest.mark.parametrize("text", ["~/pictures", "$HOME/pictures", "${HOME}/pictures"])
def test_the_home_directory_is_found_in_every_spelling(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_root(text) == data_root(Path(text)) == tmp_path / "pictures"
    monkeypatch.setenv("PET_CIFAR_DATA", text)
    assert data_root(None) == tmp_path / "pictures"


def test_the_state_is_kept_beside_the_data(tmp_path: Path) -> None:
    assert state_directory(tmp_path) == tmp_path / ".pet_cifar"
    assert list((tmp_path / ".pet_cifar").iterdir()) == []


def test_the_state_of_read_only_data_is_kept_in_the_users_cache(tmp_path: Path) -> None:
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        root.mkdir()
        (root / ".pet_cifar").write_text("in the way, as root may write everywhere")
    states = [state_directory(root) for root in roots]
    assert all(state.is_dir() and state.is_relative_to(tmp_path / "cache") for state in states)
    assert states[0] != states[1]
    assert state_directory(roots[0]) == states[0]

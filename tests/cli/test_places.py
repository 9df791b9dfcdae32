"""A file decides no place outside of the working directory that nobody has read."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pet_cifar.cli.main import main
from pet_cifar.cli.places import Given, check_places, leads_out
from pet_cifar.data.files import download
from pet_cifar.errors import InputError
from tests.cli.commands import refused, status_of
from tests.cli.forging import CONFIG, forged, written

SHORT = ("--trainer.max_epochs", "2", "--trainer.limit_train_batches", "1", "--trainer.enable_progress_bar", "false")


def at(place: str) -> dict[str, dict[str, Any]]:
    """The ways in which a config can name a place, by the option."""
    mine: dict[str, Any] = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": place, "filename": "mine"}}
    named = {"class_path": "ModelCheckpoint", "init_args": {"filename": f"{place}/mine"}}
    table = {"class_path": "CSVLogger", "init_args": {"save_dir": place}}
    return {
        "trainer.default_root_dir": {"default_root_dir": place},
        "trainer.callbacks.dirpath": {"callbacks": [mine]},
        "trainer.callbacks.filename": {"callbacks": [named]},
        "trainer.logger.save_dir": {"logger": table},
    }


OPTIONS = list(at(""))


def with_trainer(own: Path, trainer: dict[str, Any]) -> str:
    """A checkpoint whose config has these options of the Trainer."""
    config = yaml.safe_load(torch.load(own, weights_only=True)["config"])
    config["trainer"] |= trainer
    return forged(own, config=yaml.safe_dump(config))


@pytest.mark.parametrize("option", OPTIONS)
def test_a_config_that_leads_elsewhere_is_told(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = at(str(tmp_path / "out"))[option]
    main(["fit", "--config", written({"trainer": CONFIG["trainer"] | trainer}), *SHORT])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "leads out" in line]
    assert "--config a_config.yaml" in line
    assert f"--{option} {tmp_path}" in line
    assert list((tmp_path / "out").rglob("*")), "it is the user's own, and taken"


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("place", ["absolute", "upwards", "home", "a link", "a link itself", "a variable"])
def test_a_checkpoint_leads_nowhere(
    option: str,
    place: str,
    own_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    Path("link").symlink_to(tmp_path)
    Path("bare").symlink_to(tmp_path / "out")
    out = {
        **{"absolute": str(tmp_path / "out"), "upwards": "../out", "home": "~/out", "a link": "link/out"},
        **{"a link itself": "bare", "a variable": "$OUT"},
    }[place]
    file = with_trainer(own_checkpoint, at(out)[option])
    before = sorted(Path("..").iterdir())
    if option == "trainer.logger.save_dir":  # No logger is taken out of a checkpoint.
        assert status_of("fit", "--ckpt_path", file, *SHORT) == 0
    else:
        line = refused(capsys, "fit", "--ckpt_path", file, *SHORT)
        assert file in line
        assert f"--{option} {out}" in line
        assert not Path("lightning_logs").exists()
    assert not list(tmp_path.rglob("out"))
    assert sorted(Path("..").iterdir()) == before


@pytest.mark.parametrize("way", ["dirpath", "directory", "filename", "a name that follows the epoch", "a config"])
def test_no_other_run_is_written_into(
    way: str, own_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path("lightning_logs/other/version_1")
    (other / "checkpoints").mkdir(parents=True)
    kept = {other / name: name.encode() for name in ("config.yaml", "run.json", "checkpoints/best.ckpt")}
    for path, content in kept.items():
        path.write_bytes(content)
    ways: dict[str, dict[str, Any]] = {
        "dirpath": {"dirpath": str(other / "checkpoints"), "filename": "best"},
        "filename": {"dirpath": "lightning_logs", "filename": "other/version_1/checkpoints/best"},
        "a name that follows the epoch": {
            **{"dirpath": "lightning_logs/other", "filename": "version_{epoch}/checkpoints/best"},
            "auto_insert_metric_name": False,
        },
    }
    named: dict[str, Any] = {"class_path": "RunRecord", "init_args": {"directory": str(other)}}
    if way in ways:
        named = {"class_path": "ModelCheckpoint", "init_args": {"enable_version_counter": False, **ways[way]}}
    if way == "a config":
        main(["fit", "--config", written({"trainer": CONFIG["trainer"] | {"callbacks": [named]}}), *SHORT])
        assert f"lies in the run directory {other.resolve()}" in capsys.readouterr().out
        return
    file = with_trainer(own_checkpoint, {"callbacks": [named]})
    line = refused(capsys, "fit", "--ckpt_path", file, *SHORT)
    assert f"lies in the run directory {other.resolve()}" in line
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == kept


def test_what_is_typed_wins_and_stays_at_hand(own_checkpoint: Path, tmp_path: Path) -> None:
    file = with_trainer(own_checkpoint, {"default_root_dir": "/nowhere/at/all"})
    assert status_of("fit", "--ckpt_path", file, "--trainer.default_root_dir", ".", *SHORT) == 0
    elsewhere = str(tmp_path / "typed")
    assert status_of("fit", "--ckpt_path", file, f"--trainer.default_root_dir={elsewhere}", *SHORT) == 0
    assert list((tmp_path / "typed/lightning_logs").iterdir())
    # What a test reads of a checkpoint writes nowhere.
    assert status_of("test", "--ckpt_path", file, *SHORT[-2:]) == 0


@pytest.mark.parametrize(
    ("place", "typed"),
    [
        ("..", "../try/last.ckpt"),
        ("{folder}", "{folder}/try/last.ckpt"),
        ("/", "{folder}/try/last.ckpt"),
        ("{folder}", "--data.root={folder}"),
        ("{folder}", '--trainer.callbacks+=[{{"class_path": "Timer", "init_args": {{"interval": "{folder}"}}}}]'),
    ],
)
def test_a_word_is_the_users_own_for_its_option_alone(
    place: str, typed: str, own_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, typed = place.format(folder=tmp_path), typed.format(folder=tmp_path)
    file = with_trainer(own_checkpoint, {"default_root_dir": place})
    words = [typed]
    if typed.endswith(".ckpt"):
        Path(typed).parent.mkdir(exist_ok=True)
        file, words = str(Path(file).rename(typed)), []
    line = refused(capsys, "fit", "--ckpt_path", file, *words, *SHORT)
    assert f"--trainer.default_root_dir {place}" in line


@pytest.mark.parametrize(
    "typed",
    ["--trainer.default_root_dir={}", "--trainer.default_root_dir={}/a/..", '--trainer={{"default_root_dir": "{}"}}'],
)
def test_the_same_place_may_be_typed_in_other_words(typed: str, tmp_path: Path) -> None:
    given = [Given("the config in a.ckpt", {"trainer": {"default_root_dir": str(tmp_path)}}, is_checkpoint=True)]
    final = {"trainer": {"default_root_dir": str(tmp_path)}}
    with pytest.raises(InputError, match="default_root_dir"):
        list(check_places(given, final, ["fit"], None))
    assert list(check_places(given, final, ["fit", typed.format(tmp_path)], None)) == []


def test_a_config_speaks_for_its_own_option_alone(tmp_path: Path) -> None:
    place = str(tmp_path)
    final = {"trainer": {"default_root_dir": place}}
    given = [
        Given("the config in a.ckpt", {"trainer": {"default_root_dir": place}}, is_checkpoint=True),
        Given("--config a.yaml", {"data": {"init_args": {"root": place}}}, is_checkpoint=False),
    ]
    with pytest.raises(InputError, match="the config in a.ckpt"):
        list(check_places(given, final, ["fit"], None))


def test_no_data_is_put_where_a_checkpoint_says(
    own_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    asked: list[Path] = []

    def nobody_is_there(url: str, part: Path, *_: object) -> str:
        asked.append(part)
        return "nobody is there"

    monkeypatch.setattr(download, "_try_mirror", nobody_is_there)
    for root in (tmp_path / "new", there, Path("at_hand")):
        config = yaml.safe_load(torch.load(own_checkpoint, weights_only=True)["config"])
        config["data"] = {"class_path": "CIFAR10DataModule", "init_args": {"root": str(root)}}
        file = forged(own_checkpoint, config=yaml.safe_dump(config))
        for verb in ("test", "fit"):
            line = refused(capsys, verb, "--ckpt_path", file, *SHORT)
            assert str(root) in line
            assert "--data.root" in line
            assert not asked
            assert not root.exists() or not list(root.iterdir())
    # What is typed is the user's own.
    assert str(root) in refused(capsys, "test", "--ckpt_path", file, "--data.root", str(root), *SHORT)
    assert {part.parent for part in asked} == {root}


def test_a_run_elsewhere_goes_on_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "runs"
    words = ["fit", "--config", written({}), *SHORT[2:], "--trainer.default_root_dir", str(root)]
    main([*words, "--trainer.max_epochs", "1"])
    run = root / "lightning_logs/a_config/version_0"
    main(["fit", "--resume", str(run), "--trainer.max_epochs", "2"])
    assert "leads out" not in capsys.readouterr().out
    # Where it was moved, its old place is none that the user has named.
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    run = run.rename(here / "moved")
    assert f"--trainer.default_root_dir {root}" in refused(capsys, "fit", "--resume", str(run), *SHORT)
    main(["fit", "--resume", str(run), "--trainer.default_root_dir", ".", "--trainer.max_epochs", "3"])
    assert not list(root.rglob("*.ckpt"))


def test_data_elsewhere_is_told_once(
    cats_dogs_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"class_path": "CatsDogsDataModule", "init_args": {"root": str(cats_dogs_root), "image_size": 16}}
    words = ["fit", "--config", written({"data": data}), *SHORT]
    for times in (1, 0):
        main(words)
        told = [line for line in capsys.readouterr().out.splitlines() if str(cats_dogs_root / ".pet_cifar") in line]
        assert len(told) == times


@pytest.mark.parametrize(
    ("text", "leads"),
    [
        *(
            (one, True)
            for one in (
                "/etc/a",
                "../a",
                "a/../../b",
                "~/a",
                "~",
                "$HOME",
                "${HOME}/a",
                "~nobody_of_this_name/../../a",
                "/\0",
                "..",
            )
        ),
        *(
            (one, False)
            for one in ("a", "a/b", "a/../b", "{epoch}-{val/loss}", "1e-3", "", "./a", "a..b", "auto", "\ud800")
        ),
    ],
)
def test_what_leads_out(text: str, leads: bool) -> None:
    assert leads_out(text, [Path.cwd()]) is leads

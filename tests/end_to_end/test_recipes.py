"""Lightning's and torchvision's pieces work with any net, from a YAML."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Callback, LightningModule, Trainer

from pet_cifar.callbacks.hyper_parameters import hyper_parameters
from pet_cifar.cli.main import main
from pet_cifar.cli.trainer import PetCifarCLI
from pet_cifar.training import lr_finder
from tests.conftest import compiles

CONFIG = Path(__file__).parents[2] / "configs" / "digits_residual.yaml"


class Rates(Callback):
    """The learning rates of every step."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])


def fit(directory: Path, callbacks: list[dict[str, Any]], *options: str, **model: Any) -> PetCifarCLI:
    recipe = yaml.safe_load(CONFIG.read_text())
    recipe["model"]["init_args"] |= {"widths": [8, 8], **model}
    recipe["data"]["init_args"] |= {"image_size": 16, "augment": {"translate": 1}}
    recipe["trainer"] = {"max_epochs": 2, "callbacks": callbacks}
    file = directory / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    done = main(["fit", "--config", str(file), *options])
    assert done is not None
    return done


def weights(done: PetCifarCLI) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = done.model.state_dict()
    return state


def test_an_exponential_moving_average_is_what_is_scored_and_kept(tmp_path: Path) -> None:
    def averaged(decay: float) -> PetCifarCLI:
        return fit(tmp_path, [{"class_path": "EMAWeightAveraging", "init_args": {"decay": decay}}])

    plain, latest, slow = fit(tmp_path, []), averaged(0.0), averaged(0.9)
    # An average that forgets everything is the net itself.
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(latest)[name], value, atol=1e-6, rtol=1e-5)
    assert plain.trainer.callback_metrics["val/loss"] == pytest.approx(latest.trainer.callback_metrics["val/loss"])
    assert plain.trainer.callback_metrics["val/loss"] != slow.trainer.callback_metrics["val/loss"]
    kept = torch.load(Path(slow.trainer.log_dir or "") / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, kept[name]) for name, value in weights(slow).items())


FACTORED = {"PlainCNN": {"head_lr_factor": 0.1}, "SpeedrunCNN": {"bias_lr_factor": 4.0, "whitening_bias_epochs": 0}}


@pytest.mark.parametrize("net", FACTORED)
def test_factors_come_on_top_of_the_learning_rate_that_was_found(tmp_path: Path, net: str) -> None:
    finder = {"class_path": "LRFinder", "init_args": {"num_training_steps": 30, "max_lr": 10.0}}
    again = ("--model", net, "--model.widths", "[8]") if net == "SpeedrunCNN" else ("--model", net)
    few = ("--data.image_size", "8", "--data.batch_size", "16", "--trainer.limit_train_batches", "20")
    options = {**FACTORED[net], "optimizer": "sgd", "lr": 0.0, "schedule": "constant", "warmup_fraction": 0}
    given = [part for name, value in options.items() for part in (f"--model.{name}", str(value))]
    done = fit(tmp_path, [finder], *again, *given, *few)
    factors = {group["lr_factor"] for group in done.trainer.optimizers[0].param_groups}
    assert factors == {1.0, *(value for name, value in FACTORED[net].items() if name.endswith("factor"))}
    for group in done.trainer.optimizers[0].param_groups:
        assert 0 < group["lr"] == pytest.approx(done.model.lr * group["lr_factor"])


def test_the_learning_rate_that_was_found_is_the_one_that_is_used(tmp_path: Path) -> None:
    finder = {"class_path": "LRFinder", "init_args": {"num_training_steps": 30, "max_lr": 10.0}}
    rates = {"class_path": "tests.end_to_end.test_recipes.Rates"}
    options = ("--trust", __name__)
    done = fit(tmp_path, [finder, rates], *options, optimizer="sgd", lr=1e-7, schedule="cosine", warmup_fraction=0.25)
    (found,) = [one.optimal_lr.suggestion() for one in done.trainer.callbacks if hasattr(one, "optimal_lr")]  # type: ignore[attr-defined]
    assert found > 1e-5
    assert done.model.lr == found
    assert hyper_parameters(done.trainer, done.model)["lr"] == found
    (seen,) = [one.rates for one in done.trainer.callbacks if isinstance(one, Rates)]  # type: ignore[attr-defined]
    seen = seen[-done.trainer.global_step :]
    assert max(map(max, seen)) == pytest.approx(found, rel=0.02)
    assert seen[0] == [0.0] * len(seen[0])


def test_a_searched_run_that_goes_on_keeps_its_rate_and_its_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finder = {"class_path": "LRFinder", "init_args": {"num_training_steps": 20}}
    short = ("--trainer.limit_train_batches", "12")
    first = fit(tmp_path, [finder], *short, optimizer="sgd", lr=1e-7, schedule="constant")
    last = Path(first.trainer.log_dir or "") / "checkpoints" / "last.ckpt"
    kept = torch.load(last, weights_only=True)
    assert kept["hyper_parameters"]["lr"] == first.model.lr != 1e-7
    again = main(["fit", "--ckpt_path", str(last), "--trainer.max_epochs", "3"])
    assert again is not None
    assert again.model.lr == first.model.lr
    assert {group["lr"] for group in again.trainer.optimizers[0].param_groups} == {first.model.lr}
    assert again.trainer.global_step == 3 * 12
    own = main(["fit", "--ckpt_path", str(last), "--trainer.max_epochs", "3", "--model.lr", "0.25"])
    assert own is not None
    assert {group["lr"] for group in own.trainer.optimizers[0].param_groups} == {0.25}
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["fit", "--ckpt_path", str(last), "--trainer.callbacks", "LearningRateFinder"])
    assert "give --trainer.callbacks LRFinder, which does not" in capsys.readouterr().err


def test_a_search_that_finds_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*options: str, **search: float) -> str:
        with pytest.raises(SystemExit):
            fit(tmp_path, [{"class_path": "LRFinder", "init_args": search}], *options, optimizer="sgd")
        return capsys.readouterr().err

    assert "the whole run has 10 steps" in told("--trainer.limit_train_batches", "5")
    assert "from 100.0 to 1000000.0: the loss exploded after" in told(min_lr=100.0, max_lr=1e6, num_training_steps=20)


def test_the_search_gives_each_group_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[list[float]] = []
    real = lr_finder._apart

    def seen(optimizer: torch.optim.Optimizer, *rest: Any) -> None:
        real(optimizer, *rest)
        rates.append([group["lr"] for group in optimizer.param_groups])

    monkeypatch.setattr(lr_finder, "_apart", seen)
    finder = {"class_path": "LRFinder", "init_args": {"min_lr": 1e-6, "max_lr": 1e-2, "num_training_steps": 20}}
    net = ("--model", "SpeedrunCNN", "--model.widths", "[8]", "--model.optimizer", "sgd", "--model.bias_lr_factor", "8")
    done = fit(tmp_path, [finder], *net, "--model.whitening_bias_epochs", "0")
    factors = [group["lr_factor"] for group in done.trainer.optimizers[0].param_groups]
    assert set(factors) == {1.0, 8.0}
    assert len(rates) == 20
    for step, one in enumerate(rates):
        rate = 1e-6 * (1e4 ** ((step + 1) / 20) if step else 1)
        assert one == pytest.approx([rate * factor for factor in factors])


@compiles
def test_a_compiled_run_draws_its_pictures_and_is_tested_in_one_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Torch's own loggers pass nothing on by themselves.
    monkeypatch.setattr(logging.getLogger("torch._dynamo"), "propagate", True)
    losses = []
    for compiled in (True, False):
        done = fit(tmp_path, [], compile=compiled, widths=[8])
        tested = main(["test", "--run", done.trainer.log_dir or ""])
        assert tested is not None
        found = {**done.trainer.callback_metrics, **tested.trainer.callback_metrics}
        losses.append([float(found[f"{stage}/loss"]) for stage in ("train", "val", "test")])
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
    # This is what torch says when it gives up compiling.
    assert "recompile_limit" not in caplog.text


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "both"])
def test_mixing_and_smoothing_come_from_the_yaml(tmp_path: Path, mix: str) -> None:
    four = ("--trainer.max_epochs", "4")
    plain = fit(tmp_path, [], *four, label_smoothing=0.1)
    mixed = fit(tmp_path, [], *four, label_smoothing=0.1, mix=mix, mix_alpha=0.4)
    assert mixed.model.mix == mix
    assert plain.trainer.callback_metrics["train/loss"] < mixed.trainer.callback_metrics["train/loss"]
    assert mixed.trainer.callback_metrics["val/acc"] > 0.3

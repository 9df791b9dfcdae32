"""Typical mistakes: each is answered in one line that names the right option, file and value."""

import re
from pathlib import Path

import pytest

from pet_cifar.cli import suggestions
from pet_cifar.cli.main import main
from pet_cifar.cli.options import choices, options_of, options_of_class
from pet_cifar.cli.trainer import PetCifarCLI
from pet_cifar.data import ImageDataModule
from pet_cifar.errors import InputError
from pet_cifar.training import ImageClassifier
from tests.cli.commands import QUICK, fit, refused

FIT = ["fit", *QUICK]
VGG16 = ["fit", "--model", "VGG16Classifier", "--data", "DigitsDataModule"]


def of(text: str) -> list[str]:
    return [*FIT, *text.split()]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        # Names from other tools
        (of("--lr 0.1"), ["--lr:", "give --model.lr 0.1"]),
        (of("--learning-rate 0.1"), ["give --model.lr 0.1"]),
        (of("lr=0.1"), ["lr=0.1", "give --model.lr 0.1"]),
        (of("--epochs 3"), ["give --trainer.max_epochs 3"]),
        (of("-e 5"), ["-e:", "give --trainer.max_epochs 5"]),
        (of("epochs=3"), ["give --trainer.max_epochs 3"]),
        (of("--batch 32"), ["give --data.batch_size 32"]),
        (of("--batch_size 32"), ["give --data.batch_size 32"]),
        (of("-b 32"), ["give --data.batch_size 32"]),
        (of("--imgsz 64"), ["give --data.image_size 64"]),
        (of("--image-size 64"), ["give --data.image_size 64"]),
        (of("--gpus 2"), ["give --trainer.devices 2"]),
        (of("--trainer.gpus 1"), ["--trainer.gpus", "give --trainer.devices 1"]),
        (of("--device cuda"), ["give --trainer.accelerator"]),
        (of("--resume"), ["--resume needs a value"]),
        (of("--resume x.ckpt"), ["give --ckpt_path x.ckpt"]),
        (of("resume=True"), ["resume=True", "give --resume"]),
        (of("--weights x.pth"), ["--model.weights", "VGG16Classifier"]),
        (of("--pretrained"), ["--model.weights", "TimmClassifier"]),
        (of("--seed 3"), ["give --seed_everything 3"]),
        (of("--workers 3"), ["give --data.num_workers 3"]),
        # Options that are misspelled, or that another class has
        (of("--trainr.max_epochs 3"), ["--trainr.max_epochs", "--trainer.max_epochs"]),
        (of("--trainer.max_epoch 3"), ["did you mean --trainer.max_epochs?"]),
        (of("--max_epochs 3"), ["give --trainer.max_epochs 3"]),
        (of("--model.label_smothing 0.1"), ["did you mean label_smoothing?", "--model.help ResidualCNN"]),
        (of("--model.weights null"), ["--model.weights", "ResidualCNN", "VGG16Classifier"]),
        (of("--data.batchsize 3"), ["did you mean batch_size?"]),
        (of("--data.translate 3"), ["--data.augment.translate"]),
        (of("--data.augment.flipp true"), ["--data.augment.flipp", "did you mean flip?"]),
        (of("--data.augment.rotate 10"), ["--data.augment.rotate", "translate", "cutout"]),
        (of("--trainer.callbacks.monitor val/loss"), ["--trainer.callbacks.monitor", "--trainer.callbacks+ CLASS"]),
        (of("--trainer.callbacks+ LRFinder --trainer.callbacks.minlr 1"), ["did you mean min_lr?"]),
        (of("--optimizer SGD --optimizer.lrr 1"), ["--optimizer.lrr", "did you mean lr?"]),
        (of("--trainer 5"), ["--trainer:", "--trainer.accelerator"]),
        (["fit", "digits_residual"], ["--config digits_residual"]),
        (of("--model.lr"), ["--model.lr needs a value"]),
        (["fit", "--config"], ["--config needs a value"]),
        (["fit", "--config", ""], ["--config is empty", "digits_residual"]),
        # Classes
        (of("--model ResidualCN"), ["--model ResidualCN", "did you mean ResidualCNN?"]),
        (of("--model resnet18"), ["--model TimmClassifier --model.name resnet18"]),
        (of("--data DigitDataModule"), ["did you mean DigitsDataModule?"]),
        (of("--data CIFAR10"), ["did you mean CIFAR10DataModule?"]),
        (of("--data mnist"), ["--data mnist", "DigitsDataModule"]),
        (of("--optimizer Adamm"), ["--optimizer Adamm", "did you mean Adam?"]),
        (of("--trainer.callbacks+ LearningRateFind"), ["did you mean LearningRateFinder?"]),
        (of("--trainer.callbacks+ EarlyStopping"), ["monitor is missing; give --trainer.callbacks.monitor"]),
        (of("--trainer.logger TensorBordLogger"), ["--trainer.logger", "did you mean TensorBoardLogger?"]),
        # Values of the wrong kind
        (of("--trainer.max_epochs many"), ["--trainer.max_epochs", "many"]),
        (of("--trainer.precision bf17"), ["--trainer.precision", "bf16-mixed", "auto", "bf17"]),
        (of("--model.lr fast"), ["--model.lr", "fast"]),
        (of("--model.lr null"), ["--model.lr", "null"]),
        (of("--model.mix null"), ["--model.mix", "mixup", "null"]),
        (of("--data.batch_size null"), ["--data.batch_size", "null"]),
        (of("--model.widths="), ["--model.widths", "nothing"]),
        (of("--model.widths 16,32"), ["--model.widths", "'[16, 32]'"]),
        (of("--model.mean 3"), ["--model.mean", "got 3"]),
        (of("--model.optimizer adam"), ["--model.optimizer", "adamw", "adam"]),
        (of("--data.augment true"), ["--data.augment:", "true"]),
        (of("--data.augment.flip up"), ["--data.augment.flip:", "alternating", "up"]),
        (of("--data.augment.translate 1.5"), ["--data.augment.translate:", "1.5"]),
        (of("--trainer.callbacks+ LRFinder --trainer.callbacks.min_lr low"), ["--trainer.callbacks.min_lr", "low"]),
        ([*VGG16, "--model.unfreeze", "block4"], ["--model.unfreeze", "block4"]),
        ([*VGG16, "--model.weights", "null"], ["--model.weights", "null", "none"]),
        # Values that a constructor refuses
        (of("--model.lr -1"), ["--model.lr is -1"]),
        (of("--data.augment.translate -3"), ["--data.augment.translate is -3"]),
        (of("--data.val_fraction 1.5"), ["--data.val_fraction is 1.5"]),
        (of("--data.image_size 1"), ["image_size is 1", "at least 2"]),
        (of("--seed_everything -1"), ["--seed_everything is -1"]),
        (of("--model.image_size 64"), ["--model.image_size is 64", "give --data.image_size 64"]),
        (of("--model.num_classes=3"), ["--model.num_classes is 3", "has 10; leave it out"]),
        ([*VGG16, "--model.freeze_until", "blok3"], ["--model.freeze_until blok3", "block3"]),
        (of("--trainer.max_epochs -5"), ["--trainer.max_epochs -5"]),
        (of("--trainer.devices two"), ["--trainer.devices two"]),
        (of("--trainer.strategy ddpp"), ["--trainer.strategy ddpp"]),
        (of("--trainer.max_time tomorrow"), ["--trainer.max_time tomorrow"]),
        (of("--trainer.val_check_interval 5000"), ["--trainer.val_check_interval", "5000"]),
        (of("--trainer.callbacks+ EMAWeightAveraging --trainer.callbacks.decay 2"), ["--trainer.callbacks.decay 2.0"]),
        (of("--optimizer SGD --optimizer.lr -1"), ["--optimizer.lr -1"]),
        # Names of values that nothing logs
        (
            of("--trainer.callbacks+ EarlyStopping --trainer.callbacks.monitor val_loss"),
            ["--trainer.callbacks.monitor val_loss", "did you mean val/loss?"],
        ),
        *(
            (
                of(f"--trainer.callbacks+ EarlyStopping --trainer.callbacks.monitor {name}"),
                [f"--trainer.callbacks.monitor {name}", "val/loss", "epoch_seconds"],
            )
            for name in ("lr", "epoch", "step")
        ),
        (
            of("--optimizer SGD --lr_scheduler ReduceLROnPlateau --lr_scheduler.monitor epoch"),
            ["--lr_scheduler.monitor epoch", "val/loss"],
        ),
        # Two callbacks that a checkpoint could not tell apart
        (
            of("--trainer.callbacks+ ModelCheckpoint --trainer.callbacks+ ModelCheckpoint"),
            ["--trainer.callbacks ModelCheckpoint", "monitor"],
        ),
        # Shares of the batches that are none
        (of("--trainer.limit_train_batches 0.01"), ["--trainer.limit_train_batches 0.01", "22", "0.046"]),
        (of("--trainer.limit_val_batches 0.1"), ["--trainer.limit_val_batches 0.1", "3 batches", "0.334"]),
        (of("--trainer.overfit_batches 0.01"), ["--trainer.overfit_batches 0.01", "22", "0.046"]),
        (
            of("--trainer.limit_val_batches 0 --trainer.callbacks+ EarlyStopping --trainer.callbacks.monitor val/loss"),
            ["--trainer.callbacks.monitor val/loss", "train/loss"],
        ),
        (
            of("--optimizer SGD --lr_scheduler ReduceLROnPlateau --lr_scheduler.monitor val_acc"),
            ["--lr_scheduler.monitor val_acc", "did you mean val/acc?"],
        ),
        # What is missing
        (["fit"], ["--config digits_residual", "--model"]),
        (["fit", "--model", "ResidualCNN"], ["no data is given", "--data"]),
        (["fit", "--config", "nowhere.yaml"], ["--config nowhere.yaml", "digits_residual"]),
        (["fit", "--config", "digit_residual"], ["did you mean digits_residual?"]),
        (["fit", "--config", "configs/digits_residual.yaml"], ["did you mean --config digits_residual?"]),
        ([*FIT, "--config", __file__], ["cannot be read as YAML"]),
        (of("--run somewhere"), ["--run", "fit makes a run of its own", "--ckpt_path"]),
        (["test", "--config", "digits_residual"], ["test needs a trained net", "--run"]),
        (["test"], ["test needs a trained net", "--run"]),
        (["validate"], ["validate needs a trained net"]),
        (["test", "--run", "nowhere"], ["--run nowhere", "no such directory"]),
        (["test", "--run", ""], ["--run needs a directory"]),
        (["test", "--ckpt_path", "nowhere.ckpt"], ["nowhere.ckpt", "no such file"]),
        # Commands
        (["fti"], ["fti", "did you mean fit?"]),
        (["help", "fti"], ["fti", "did you mean fit?"]),
        (["data", "check", "--data", "CatsDogs"], ["--data CatsDogs", "did you mean CatsDogsDataModule?"]),
        (["data", "check", "--lr", "3"], ["--lr: there is no such option"]),
        (["data", "chek"], ["chek", "did you mean check?"]),
        (["data"], ["data check"]),
    ],
    ids=lambda value: " ".join(value[-2:]),
)
def test_a_mistake_is_answered_in_one_line(
    args: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, *args)
    for word in words:
        assert word in message
    assert not list(Path().glob("lightning_logs/*/*/checkpoints"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr: 0.1\n", ["there is no key lr", "under init_args of model"]),
        ("epochs: 3\n", ["there is no key epochs", "max_epochs under trainer"]),
        ("optimiser: adam\n", ["there is no key optimiser", "optimizer under init_args of model"]),
        ("trainer: {gpus: 1}\n", ["trainer.gpus", "devices under trainer"]),
        ("trainer: {max_epochs: many}\n", ["--trainer.max_epochs", "many"]),
        ("model: {lr: 0.1}\n", ["--model", "class_path", "lr under init_args"]),
        ("model: {class_path: ResidualCNN, lr: 0.1}\n", ["--model", "lr under init_args"]),
        ("model: {class_path: ResidualCNN, init_args: {optimiser: adam}}\n", ["did you mean optimizer?"]),
        ("model: {class_path: ResidualCN}\n", ["did you mean ResidualCNN?"]),
        ("data: {class_path: DigitsDataModule, init_args: {augment: {rotate: 9}}}\n", ["--data.augment.rotate"]),
        ("data: {class_path: DigitsDataModule, init_args: {augment: {flip: 1.5}}}\n", ["--data.augment.flip", "1.5"]),
        ("trainer: {callbacks: [{class_path: EarlyStopping}, LRFinder]}\n", ["EarlyStopping: monitor is missing"]),
        ("- a\n", ["holds no keys"]),
        ("a: [1\n", ["cannot be read as YAML"]),
    ],
)
def test_a_mistake_in_a_config_is_answered_with_the_file(
    text: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text(text)
    message = refused(capsys, "fit", "--config", "mine.yaml")
    assert "mine.yaml" in message
    for word in words:
        assert word in message


def test_all_names_of_other_tools_lead_to_options_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PetCifarCLI, "_run_subcommand", lambda self, subcommand: None)
    cli = main(["fit", *QUICK])
    assert cli is not None
    known = set(options_of(cli._parser("fit")))
    for path, base in (("model", ImageClassifier), ("data", ImageDataModule)):
        known |= {f"{path}.{name}" for cls in choices([base]) for name in options_of_class(cls)}
    assert {option.removeprefix("--") for option in suggestions.OTHER_TOOLS} <= known
    names = [name for names in suggestions.OTHER_TOOLS.values() for name in names]
    assert len(names) == len(set(names))
    assert not known & set(names)


def test_a_sentence_of_the_library_is_passed_on_whole_where_no_word_is_wrong() -> None:
    parser = fit()._parser("fit")
    parser.args = ["--model", "ResidualCNN", "--data", "DigitsDataModule"]
    with pytest.raises(InputError, match="^the library says something new$"):
        parser.error("the library\n says  something new")


def test_the_runs_that_are_there_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    fit()
    for run in ("lightning_logs", "lightning_logs/digit_residual", "digits_residual"):
        message = refused(capsys, "test", "--run", run)
        assert re.search(rf"--run {run}: .*lightning_logs/digits_residual", message)

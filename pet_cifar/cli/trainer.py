"""The Trainer's verbs: a LightningCLI with this project's defaults, and checkpoints that bring their own config."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_only

from pet_cifar.cli import arguments, hints
from pet_cifar.cli.defaults import FileLogger, claim, default_callbacks, new_run, replaces, scored_run
from pet_cifar.cli.log_filters import set_up_messages
from pet_cifar.cli.parser import Parser, refuse_null, unwrapped
from pet_cifar.data import ImageDataModule
from pet_cifar.errors import InputError
from pet_cifar.models.summary import summary
from pet_cifar.runs import directory
from pet_cifar.training import ImageClassifier, LRFinder

# Lightning 2.6 calls what jsonargparse 4.49 deprecates, once a run
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")


class SaveConfig(SaveConfigCallback):
    """Saves the config of a ``fit`` in the run directory, and in every checkpoint."""

    def __init__(self, parser: Parser, config: Namespace, **arguments: Any) -> None:
        config = config.clone()
        # of this one call: who repeats the run starts anew
        config["ckpt_path"], config["run"], config["print_model"] = None, None, False
        super().__init__(parser, config, **arguments)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes ``config.yaml``; a test leaves the run's own as it is."""
        if stage == "fit" and trainer.loggers:  # without one Lightning would name the working directory
            super().setup(trainer, pl_module, stage)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the config as text."""
        checkpoint["config"] = self.parser.dump(self.config, skip_none=False)


class PetCifarCLI(LightningCLI):
    """Trains, validates, tests and predicts."""

    def __init__(
        self,
        args: Sequence[str],
        typed: Sequence[str],
        name: str,
        checkpoint: Path | None,
        given: Sequence[Mapping[str, Any]],
    ) -> None:
        """Parses and directory.

        Args:
            args: the verb and its options, completed from the checkpoint.
            typed: the verb and its options as the user gave them.
            name: of the runs' directory; empty for the net's class.
            checkpoint: that the options were completed from, if any.
            given: the checkpoint's config and the config files, of which it is told what was overridden.
        """
        self._numbered: list[FileLogger] = []
        self._claimed: Path | None = None
        self.typed = typed
        self.command = f"pet-cifar {shlex.join(typed)}"
        self.name = name
        self.checkpoint = checkpoint
        self.given = given
        super().__init__(
            model_class=ImageClassifier,
            datamodule_class=ImageDataModule,
            save_config_callback=SaveConfig,
            # our own table of layers is printed, and the first epoch validates soon enough
            trainer_defaults={"max_epochs": 10, "enable_model_summary": False, "num_sanity_val_steps": 0},
            seed_everything_default=0,
            parser_class=Parser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=list(args),
            # hyper-parameters are what the net's __init__ received: numbers, strings and lists
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds our options, and lets the data tell the net what it needs to know."""
        parser.add_argument("--print_model", action="store_true", help="Print the net layer by layer and stop.")
        parser.add_argument(
            "--run", type=str | None, help="Take model, data and best checkpoint from this run directory."
        )
        assert isinstance(parser, Parser)
        parser.take_whole_numbers_as_such()
        for attribute in arguments.FROM_DATA:
            parser.link_arguments(f"data.{attribute}", f"model.init_args.{attribute}", apply_on="instantiate")

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        if not isinstance(seed, bool) and (seed is None or not 0 <= seed < 2**32):
            raise InputError(f"--seed_everything is {seed}; it is a number from 0 to {2**32 - 1}")
        super()._set_seed()

    def _parse_ckpt_path(self) -> None:
        # Lightning would let the checkpoint's hyper-parameters win over the command line
        # (https://github.com/Lightning-AI/pytorch-lightning/issues/21455); ours came in as the first config
        pass

    def before_instantiate_classes(self) -> None:
        """Refuses null for a value, and prints what was overridden, by a config file or the command line."""
        self._dump_config()
        for part in ("model", "data"):
            refuse_null(part, self._get(self.config, part))
        for line in arguments.overridden(self.given, self.config_dump):
            _print(line)

    def instantiate_classes(self) -> None:
        """Lets a constructor's own words reach the user."""
        with unwrapped():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds the default loggers, and the default callbacks that the user did not name."""
        given = self._get(self.config_init, "trainer")
        if given["logger"] in (None, True):
            run = directory.run_of_checkpoint(self.checkpoint) if self.checkpoint else None
            if run is not None and self.subcommand != "fit":
                kwargs["logger"] = scored_run(run)
            else:
                self._numbered = new_run(self.name or (run.parent.name if run else type(self.model).__name__))
                kwargs["logger"] = list(self._numbered)
        callbacks = given["callbacks"] or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        goes_on = self.checkpoint is not None and self.subcommand == "fit"
        if goes_on and any(type(one) is LearningRateFinder for one in callbacks):
            raise InputError(
                "Lightning's LearningRateFinder would search again and begin at epoch 0; give --trainer.callbacks "
                f"{LRFinder.__name__}, which does not, or --trainer.callbacks []"
            )
        ours = default_callbacks(str(self.subcommand), self.command, given)
        # first, so that ThroughputMonitor's clock does not measure what the user's own do at the end of an epoch
        kwargs["callbacks"] = [one for one in ours if not any(replaces(other, one) for other in callbacks)] + callbacks
        if given["logger"] is False and not any(isinstance(one, ModelCheckpoint) for one in callbacks):
            kwargs["enable_checkpointing"] = False
        return super().instantiate_trainer(**kwargs)

    def after_instantiate_classes(self) -> None:
        """Checks that the net follows its data; prints it where that is all that is asked for."""
        data = {name: getattr(self.datamodule, name) for name in arguments.FROM_DATA}
        arguments.check_follows_data(self.given, self.typed, data)
        if self._get(self.config, "print_model"):
            print(summary(self.model))
            raise SystemExit(0)

    def before_fit(self) -> None:
        """Takes a run directory, and prints the net and what its options cost."""
        if self.trainer.is_global_zero:
            if self._numbered and self.trainer.loggers == self._numbered:
                self._claimed = claim(self._numbered)
            print(summary(self.model))
            for line in hints.before_run(
                on_cpu=self.trainer.strategy.root_device.type == "cpu",
                compiles=self.model.compiles,
                precision=str(self.trainer.precision),
                chosen="--trainer.precision" in self.command,
            ):
                print(line)

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs a verb; what fails at once leaves no empty run directory."""
        try:
            super()._run_subcommand(subcommand)
        finally:
            if self._claimed is not None:
                with suppress(OSError):  # it is not empty
                    self._claimed.rmdir()

    def after_fit(self) -> None:
        """Says where the run is."""
        directory = self.trainer.log_dir
        self._tell_what_was_scored()
        if self.trainer.is_global_zero and self.trainer.loggers and directory:
            print(f"run directory: {directory}")
            if list(Path(directory).glob("checkpoints/*.ckpt")):
                print(f"test it with: pet-cifar test --run {directory}")
            elif self.checkpoint:
                print("nothing was left to train: raise --trainer.max_epochs to go on")

    def after_validate(self) -> None:
        """Says whether it was all pictures."""
        self._tell_what_was_scored()

    def _tell_what_was_scored(self) -> None:
        for line in hints.after_run(self.trainer):
            _print(line)

    def after_predict(self) -> None:
        """Says where the probabilities are."""
        directory = self.trainer.log_dir
        if self.trainer.is_global_zero and directory and self.trainer.loggers:
            print(f"predictions: {directory}/predict/predictions.csv")

    def after_test(self) -> None:
        """Says what came out and how to look at it."""
        directory = self.trainer.log_dir
        if self.trainer.is_global_zero and "test/acc" in self.trainer.callback_metrics:
            print(f"test accuracy: {100 * self.trainer.callback_metrics['test/acc'].item():.2f} %")
            self._tell_what_was_scored()
            if directory and self.trainer.loggers:
                print(f"run directory: {directory}\nlook at it with: pet-cifar board {directory}")


def run_trainer(args: Sequence[str]) -> PetCifarCLI:
    """Completes the options of one of the Trainer's verbs from its checkpoint and runs it."""
    set_up_messages()
    verb, *words = args
    words, run = arguments.take(words, "--run")
    if run is not None:
        if not run:
            raise InputError("--run needs a directory, such as lightning_logs/digits_residual")
        if verb == "fit":
            raise InputError(
                "fit makes a run of its own; to go on with one, give --ckpt_path RUN_DIR/checkpoints/last.ckpt"
            )
        words = ["--ckpt_path", str(directory.best_checkpoint(directory.find_run(run))), *words]
    configs = [value for value in arguments.values(words, ("-c", "--config")) if Path(value).is_file()]
    path = next(reversed(arguments.values(words, ("--ckpt_path",))), None)
    checkpoint = Path(path) if path else None
    if verb != "fit" and checkpoint is None and not arguments.asks_for_help(words):
        raise InputError(
            f"{verb} needs a trained net: give --run RUN_DIR, such as lightning_logs/digits_residual, "
            "or --ckpt_path FILE"
        )
    given: list[dict[str, Any]] = []
    if checkpoint is not None and not arguments.asks_for_help(words):
        own = arguments.config_of(directory.read_checkpoint(checkpoint), verb)
        if own:
            words = ["--config", json.dumps(own), *words]
            given.append(own)
    given += [arguments.read_config(Path(config)) for config in configs]
    name = arguments.name_of(Path(configs[-1])) if configs else ""
    return PetCifarCLI([verb, *words], args, name, checkpoint, given)


@rank_zero_only
def _print(line: str) -> None:
    print(line)

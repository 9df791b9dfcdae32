"""The Trainer's verbs: a LightningCLI with this project's defaults, and checkpoints that bring their own config."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from torch.optim import Optimizer

from pet_cifar.cli import (
    arguments,
    budget_option,
    callback_options,
    configs,
    constructors,
    failures,
    log_filters,
    monitors,
    options,
    run_hints,
    sweep_trial,
)
from pet_cifar.cli.defaults import FileLogger, claim, default_callbacks, new_run, replaces, scored_run
from pet_cifar.cli.parser import Parser, refuse_null
from pet_cifar.cli.save_config import SaveConfig
from pet_cifar.data import ImageDataModule
from pet_cifar.data.datamodule import image_data_of
from pet_cifar.data.scored import name_of_results
from pet_cifar.errors import InputError
from pet_cifar.models.summary import summary
from pet_cifar.runs import directory
from pet_cifar.training import ImageClassifier, LRFinder
from pet_cifar.training.budget import TimeBudget, time_budget
from pet_cifar.training.ridge import wilson_interval

# Lightning 2.6 calls what jsonargparse 4.49 deprecates, and would warn once a run.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")


class PetCifarCLI(LightningCLI):
    """Trains, validates, tests and predicts.

    Args:
        args: The verb and its options, completed from the checkpoint.
        typed: The verb and its options as the user gave them.
        name: The name of the runs' directory; where it is empty, the net's class gives it.
        checkpoint: The checkpoint that completed the options, if any.
        given: The checkpoint's config and the config files; the user is told what of them was overridden.
        callbacks: Callbacks that a Python program adds to the default ones.
        began: The reading of ``time.monotonic`` when the command began, from which a budget counts; None takes now.
    """

    def __init__(
        self,
        args: Sequence[str],
        typed: Sequence[str],
        name: str,
        checkpoint: Path | None,
        given: Sequence[Mapping[str, Any]],
        callbacks: Sequence[Callback] = (),
        began: float | None = None,
    ) -> None:
        self._began = began
        self._numbered: list[FileLogger] = []
        self._claimed: Path | None = None
        self.typed = typed
        self.command = f"pet-cifar {shlex.join(typed)}"
        self.name = name
        self.checkpoint = checkpoint
        self.given = given
        self.extra_callbacks = list(callbacks)
        super().__init__(
            model_class=ImageClassifier,
            datamodule_class=ImageDataModule,
            save_config_callback=SaveConfig,
            # Our own table of layers is printed, and the first epoch validates soon enough.
            trainer_defaults={"max_epochs": 10, "enable_model_summary": False, "num_sanity_val_steps": 0},
            seed_everything_default=0,
            parser_class=Parser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=list(args),
            # The hyper-parameters are what the net's __init__ received: numbers, strings and lists.
            load_from_checkpoint_support=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The verb that is asked for; the parsers of the others would take a third of a second to build."""
        return {self.typed[0]: LightningCLI.subcommands()[self.typed[0]]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds our options, and lets the data tell the net what it needs to know."""
        parser.add_argument("--print_model", action="store_true", help="Print the net layer by layer and stop.")
        parser.add_argument(
            "--run", type=str | None, help="Take model, data and best checkpoint from this run directory."
        )
        budget_option.add_budget_option(parser)
        assert isinstance(parser, Parser)
        parser.prefer_whole_numbers()
        for attribute in arguments.FOLLOWS_DATA:
            parser.link_arguments(f"data.{attribute}", f"model.init_args.{attribute}", apply_on="instantiate")

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        if not isinstance(seed, bool) and (seed is None or not 0 <= seed < 2**32):
            raise InputError(f"--seed_everything is {seed}; it is a number from 0 to {2**32 - 1}")
        super()._set_seed()

    def _parse_ckpt_path(self) -> None:
        # Lightning would let the checkpoint's hyper-parameters win over the command line
        # (https://github.com/Lightning-AI/pytorch-lightning/issues/21455); ours came in as the first config.
        pass

    def before_instantiate_classes(self) -> None:
        """Refuses null for a value, and prints what a config file or the command line has overridden."""
        trainer = self._get(self.config, "trainer")
        if self._resumes and isinstance(trainer["callbacks"], list):
            trainer["callbacks"] = callback_options.without_repeats(trainer["callbacks"])
        self._write_enums_as_words()
        self._dump_config()
        refuse_null(self._parser(self.subcommand), self.config[self.subcommand])
        for line in configs.overridden(self.given, self.config_dump):
            _print(line)

    def _write_enums_as_words(self) -> None:
        # Lightning's Timer says that it takes text, and has a member of an Enum as its default, which YAML cannot hold.
        callbacks = self._get(self.config, "trainer").get("callbacks") or []
        for one in callbacks if isinstance(callbacks, list) else [callbacks]:
            for name, value in (one.get("init_args") or {}).items():
                if isinstance(value, Enum):
                    one.init_args[name] = value.value

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        # Lightning builds the optimizer of --optimizer here, where the parser's instantiators do not reach.
        try:
            super()._add_configure_optimizers_method_to_model(subcommand)
        except Exception as error:
            chosen = self._get(self.config_init, "optimizer")
            cls = chosen and options.find_class([Optimizer], chosen["class_path"])
            if not cls:
                raise
            kwargs = dict(chosen.get("init_args") or {})
            raise constructors.refusal("optimizer", cls, error, kwargs, (self.model.parameters(),)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Checks what the parts ask of each other, and adds the default loggers and callbacks."""
        has = {name: getattr(self.datamodule, name) for name in arguments.FOLLOWS_DATA}
        arguments.check_follows_data(self.given, self.typed[1:], has)
        given = self._get(self.config_init, "trainer")
        if given["barebones"]:
            kwargs["logger"] = False
        elif given["logger"] in (None, True):
            run = directory.run_of_checkpoint(self.checkpoint) if self.checkpoint else None
            if run is not None and self.subcommand != "fit":
                kwargs["logger"] = scored_run(run, given["default_root_dir"])
            else:
                name = self.name or (run.parent.name if run else type(self.model).__name__)
                self._numbered = new_run(name, given["default_root_dir"])
                kwargs["logger"] = list(self._numbered)
        kwargs["callbacks"] = self._callbacks(given)
        if any(isinstance(one, TimeBudget) for one in kwargs["callbacks"]) and not given["fast_dev_run"]:
            kwargs |= budget_option.without_other_ends(self.typed)
        bare = given["barebones"] or given["logger"] is False
        if bare and not any(isinstance(one, ModelCheckpoint) for one in kwargs["callbacks"]):
            kwargs["enable_checkpointing"] = False
        if self.subcommand == "fit":
            validates, schedule = given["limit_val_batches"] != 0, self._get(self.config_init, "lr_scheduler")
            monitors.check_monitors(
                kwargs["callbacks"], self.model, self.datamodule, validates=validates, schedule=schedule
            )
        try:
            with log_filters.held_back():
                return super().instantiate_trainer(**kwargs)
        except Exception as error:
            plain = {name: value for name, value in given.items() if name not in ("callbacks", "logger")}
            raise constructors.refusal("trainer", Trainer, error, plain) from error

    def _callbacks(self, given: Mapping[str, Any]) -> list[Callback]:
        callbacks = given["callbacks"] or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        # Its clock measures what the others do at the start.
        budget = budget_option.budget_of(self.typed, self._get(self.config, "budget"), self._began)
        if self._resumes and any(type(one) is LearningRateFinder for one in callbacks):
            raise InputError(
                "Lightning's LearningRateFinder would search again and begin at epoch 0; give --trainer.callbacks "
                f"{LRFinder.__name__}, which does not, or --trainer.callbacks []"
            )
        ours = [*budget, *default_callbacks(str(self.subcommand), self.command, given)]
        if self.subcommand == "fit":
            ours += sweep_trial.trial_callbacks()
        # The defaults come first, so that ThroughputMonitor's clock does not measure what the user's own do at the
        # end of an epoch.
        ours = [one for one in ours if not any(replaces(other, one) for other in callbacks)]
        callback_options.refuse_same_state([*ours, *callbacks, *self.extra_callbacks])
        if self._resumes:
            written = self._get(self.config, "trainer")["callbacks"] or []
            written = written if isinstance(written, list) else [written]
            asked = [dict(one.get("init_args") or {}) for one in written]
            ours.insert(0, callback_options.CallbackOptions(list(zip(callbacks, asked, strict=True))))
        return [*ours, *callbacks, *self.extra_callbacks]

    @property
    def _resumes(self) -> bool:
        return self.checkpoint is not None and self.subcommand == "fit"

    def after_instantiate_classes(self) -> None:
        """Prints the net where that is all that is asked for."""
        if self._get(self.config, "print_model"):
            print(summary(self.model))
            raise SystemExit(0)

    def before_fit(self) -> None:
        """Takes a run directory, and prints the net and what its options cost."""
        if self.trainer.is_global_zero:
            if self._numbered and self.trainer.loggers == self._numbered:
                self._claimed = claim(self._numbered)
            print(summary(self.model))
            for line in run_hints.before_run(
                on_cpu=self.trainer.strategy.root_device.type == "cpu",
                compiles=self.model.compiles,
                precision=str(self.trainer.precision),
                chosen="--trainer.precision" in self.command,
            ):
                print(line)

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs a verb; a run that fails at once leaves no empty directory."""
        try:
            super()._run_subcommand(subcommand)
        except Exception as error:
            parts = {"model": self.model, "data": self.datamodule, "trainer": self.trainer}
            if (refusal := failures.refusal_of_run(error, parts)) is None:
                raise
            raise refusal from error
        finally:
            if self._claimed is not None:
                with suppress(OSError):  # The directory is not empty.
                    self._claimed.rmdir()

    def after_fit(self) -> None:
        """Says where the run is."""
        log_dir = self.trainer.log_dir
        self._print_hints()
        if self.trainer.is_global_zero and self.trainer.loggers and log_dir:
            print(f"run directory: {log_dir}")
            if (budget := time_budget(self.trainer)) is not None:
                print(budget_option.outcome(budget, self.trainer.global_step))
            if list(Path(log_dir).glob("checkpoints/*.ckpt")):
                print(f"test it with: pet-cifar test --run {shlex.quote(log_dir)}")
            elif self.checkpoint:
                print(run_hints.nothing_left(self.trainer))

    def after_validate(self) -> None:
        """Says whether all pictures were scored."""
        self._print_hints()

    def _print_hints(self) -> None:
        for line in run_hints.after_run(self.trainer):
            _print(line)

    def after_predict(self) -> None:
        """Says where the probabilities are."""
        log_dir = self.trainer.log_dir
        if self.trainer.is_global_zero and log_dir and self.trainer.loggers:
            print(f"predictions: {log_dir}/{name_of_results(self.trainer, 'predict')}/predictions.csv")

    def _accuracy(self) -> str:
        """The accuracy of a test with its 95 % interval, since that of few pictures says little."""
        share = self.trainer.callback_metrics["test/acc"].item()
        data = image_data_of(self.trainer)
        if data is None or "_batches" in name_of_results(self.trainer, "test"):
            return f"{100 * share:.2f} %"
        count = len(data.splits["test"])
        low, high = wilson_interval(round(share * count), count)
        return f"{100 * share:.2f} % of {count:,} pictures, 95 % interval {100 * low:.2f} to {100 * high:.2f} %"

    def after_test(self) -> None:
        """Says what came out and how to look at it."""
        log_dir = self.trainer.log_dir
        if self.trainer.is_global_zero and "test/acc" in self.trainer.callback_metrics:
            print(f"test accuracy: {self._accuracy()}")
            self._print_hints()
            if log_dir and self.trainer.loggers:
                if (name := name_of_results(self.trainer, "test")) != "test":
                    print(f"results: {log_dir}/{name}/, apart from those of the run's own test")
                print(f"run directory: {log_dir}\nlook at it with: pet-cifar board {shlex.quote(log_dir)}")


def run_trainer(args: Sequence[str], callbacks: Sequence[Callback] = (), began: float | None = None) -> PetCifarCLI:
    """Completes the options of one of the Trainer's verbs from its checkpoint and runs it.

    Args:
        args: The verb and its options.
        callbacks: Callbacks that come after the default ones.
        began: The reading of ``time.monotonic`` when the command began; None takes now.
    """
    log_filters.filter_messages()
    verb, *words = args
    wants_help = arguments.asks_for_help(words)
    # A config is weaker than the options, wherever it stands among them.
    names, words = arguments.split_words(words, "-c", "--config")
    runs, words = arguments.split_words(words, "--run")
    if runs:
        if verb == "fit":
            raise InputError(
                "--run: fit makes a run of its own; to go on with one, give --ckpt_path RUN_DIR/checkpoints/last.ckpt"
            )
        words = ["--ckpt_path", str(directory.best_checkpoint(directory.find_run(runs[-1]))), *words]
    files = [configs.find_config(name) for name in names]
    given = [configs.read_config(file) for file in files]
    paths, _ = arguments.split_words(words, "--ckpt_path")
    checkpoint = Path(paths[-1]) if paths and paths[-1] and not wants_help else None
    if verb != "fit" and checkpoint is None and not wants_help:
        raise InputError(
            f"{verb} needs a trained net: give --run RUN_DIR, such as lightning_logs/digits_residual, "
            "or --ckpt_path FILE"
        )
    words = [word for file in files for word in ("--config", str(file))] + words
    if checkpoint is not None:
        own = configs.config_of_checkpoint(directory.read_checkpoint(checkpoint), verb)
        if own:
            words = ["--config", json.dumps(own), *words]
            given.insert(0, own)
    name = configs.run_name(files[-1]) if files else ""
    return PetCifarCLI([verb, *words], args, name, checkpoint, given, callbacks, began)


@rank_zero_only
def _print(line: str) -> None:
    print(line)

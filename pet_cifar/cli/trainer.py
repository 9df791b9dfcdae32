"""The Trainer's verbs: a LightningCLI with this project's defaults, and checkpoints that bring their own config."""

import os
import shlex
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from torch.optim import Optimizer

from pet_cifar.callbacks.stop_request import Stopped
from pet_cifar.cli import (
    arguments,
    batch_size,
    budget_option,
    callback_options,
    child_processes,
    configs,
    constructors,
    failures,
    fit_and_test,
    fit_directory,
    last_lines,
    launchers,
    log_filters,
    monitors,
    options,
    places,
    precision,
    rank_failure,
    run_hints,
    run_options,
    slurm_job,
    sweep_trial,
    threads,
    trust,
)
from pet_cifar.cli.defaults import default_callbacks, replaces
from pet_cifar.cli.moved_data import with_place_of_data
from pet_cifar.cli.parser import Parser, check_values
from pet_cifar.cli.ranks_agree import RanksAgree
from pet_cifar.cli.save_config import SaveConfig
from pet_cifar.cli.stop_signals import StopSignals
from pet_cifar.data import ImageDataModule
from pet_cifar.data.files.download import without_downloads
from pet_cifar.errors import DataMissingError, InputError
from pet_cifar.hardware import cores
from pet_cifar.models.summary import summary
from pet_cifar.names import printable
from pet_cifar.runs import trusted
from pet_cifar.runs.checkpoint_file import use_hashed_checkpoints
from pet_cifar.runs.continuation import in_a_new_directory
from pet_cifar.runs.net_size import built_within
from pet_cifar.training import ImageClassifier, LRFinder
from pet_cifar.training.budget import TimeBudget

# Lightning 2.6 calls what jsonargparse 4.49 deprecates, and would warn once a run.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")


class PetCifarCLI(LightningCLI):
    """Trains, validates, tests and predicts.

    Args:
        asked: What the run is asked for.
        callbacks: Callbacks that a Python program adds to the default ones.
        began: The reading of ``time.monotonic`` when the command began, from which a budget counts; None takes now.
        load: What other processes do since the command began; None where nobody has watched.
    """

    def __init__(
        self,
        asked: run_options.RunOptions,
        callbacks: Sequence[Callback] = (),
        began: float | None = None,
        load: threads.OtherLoad | None = None,
    ) -> None:
        self._directory: fit_directory.FitDirectory | None = None
        self._signals = StopSignals()
        self._downloads = True
        self._began = began
        self._load = load
        self.asked = asked
        # What a precision that follows the hardware has come to is written into them.
        self.given = [config for _, config in asked.given]
        self.command = f"pet-cifar {shlex.join(asked.typed)}"
        self.extra_callbacks = list(callbacks)
        super().__init__(
            model_class=ImageClassifier,
            datamodule_class=ImageDataModule,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": asked.continued is not None},
            # Our own table of layers is printed, and the first epoch validates soon enough.
            trainer_defaults={"max_epochs": 10, "enable_model_summary": False, "num_sanity_val_steps": 0},
            seed_everything_default=0,
            parser_class=Parser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=list(asked.words),
            # The hyper-parameters are what the net's __init__ received: numbers, strings and lists.
            load_from_checkpoint_support=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The verb that is asked for; the parsers of the others would take a third of a second to build."""
        return {self.asked.verb: LightningCLI.subcommands()[self.asked.verb]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds our options, and lets the data tell the net what it needs to know."""
        parser.add_argument("--print_model", action="store_true", help="Print the net layer by layer and stop.")
        parser.add_argument(
            "--run", type=str | None, help="Take model, data and best checkpoint from this run directory."
        )
        if self.asked.verb == "fit":
            parser.add_argument(
                "--resume",
                type=str | None,
                help="Go on with a run in its own directory: that directory, or that of a config's runs, of which the "
                "newest unfinished one is taken.",
            )
        parser.add_argument("--trust", type=str | None, metavar="MODULE", help=trusted.HELP)
        parser.add_argument("--threads", type=int | None, help=threads.HELP)
        budget_option.add_budget_option(parser)
        if self.asked.verb == "fit":
            fit_and_test.add_test_option(parser)
        assert isinstance(parser, Parser)
        parser.prefer_whole_numbers()
        parser.also_takes("trainer.precision", precision.AUTO)
        for attribute in arguments.FOLLOWS_DATA:
            parser.link_arguments(f"data.{attribute}", f"model.init_args.{attribute}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the words once the configs name nothing but classes that a file may name."""
        for source, config in zip(self.asked.sources, self.given, strict=True):
            trust.check_config(self._parser(self.asked.verb), config, source)
        trust.refuse_files(self._parser(self.asked.verb), self.asked.typed[1:])
        super().parse_arguments(parser, args)

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
        """Refuses values that no class could use, and prints what a config file or the command line has overridden."""
        trainer = self._get(self.config, "trainer")
        if self.asked.goes_on and isinstance(trainer["callbacks"], list):
            trainer["callbacks"] = callback_options.without_repeats(trainer["callbacks"])
        self._write_enums_as_words()
        if trainer["precision"] == precision.AUTO:
            trainer["precision"], why = precision.settled(trainer["accelerator"], self.asked.checkpoint_config)
            self.given = [precision.with_word(config, trainer["precision"]) for config in self.given]
            _print(f"precision: {trainer['precision']}, {why}")
        self._dump_config()
        own = self.config[self.subcommand]
        check_values(self._parser(self.subcommand), own)
        if own.get("weights_only") is False:
            raise InputError("--weights_only false would run code in the checkpoint, which is never done; leave it out")
        said = [
            places.Given(source, config, source.startswith(configs.CHECKPOINT))
            for source, config in zip(self.asked.sources, self.given, strict=True)
        ]
        continued = self.asked.continued
        for line in places.check_places(
            said, self.config_dump, self.asked.typed, self.asked.checkpoint, continued.run if continued else None
        ):
            _print(line)
        self._downloads = not places.takes_data_root_of_checkpoint(said, self.config_dump, self.asked.typed)
        for line in configs.overridden(self.given, self.config_dump):
            _print(line)
        self._choose_threads(own.get("threads"))

    def _choose_threads(self, asked: int | None) -> None:
        """Sets how many threads compute, before anything is computed."""
        number, line = asked, ""
        if asked is not None:
            threads.check_number(asked)
        elif self.asked.verb == "fit":
            goes_on = self.asked.continued
            number, line = threads.threads_of_fit(self._load, goes_on.run if goes_on else None)
        if number is not None:
            torch.set_num_threads(number)
        if line:
            _print(line)

    def _write_enums_as_words(self) -> None:
        # Lightning's Timer says that it takes text, and has a member of an Enum as its default, which YAML cannot hold.
        callbacks = self._get(self.config, "trainer").get("callbacks") or []
        for one in callbacks if isinstance(callbacks, list) else [callbacks]:
            for name, value in (one.get("init_args") or {}).items():
                if isinstance(value, Enum):
                    one.init_args[name] = value.value

    def instantiate_classes(self) -> None:
        """Builds everything; a checkpoint's net takes no more memory than its file speaks for."""
        if self.asked.checkpoint is not None:
            vars(self.parser)["around_model"] = partial(built_within, self.asked.checkpoint)
        super().instantiate_classes()

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
        arguments.check_follows_data(self.given, self.asked.typed[1:], has)
        given = self._get(self.config_init, "trainer")
        if given["barebones"]:
            kwargs["logger"] = False
        elif given["logger"] in (None, True):
            net = type(self.model).__name__
            kwargs["logger"] = fit_directory.loggers_for(self.asked, net, given["default_root_dir"])
            if self.subcommand == "fit":
                processes = configs.words_of_processes(self.config_dump["trainer"])
                self._directory = fit_directory.FitDirectory(kwargs["logger"], self.asked.continued, processes)
        if self.asked.continued is not None and self._directory is None:
            raise InputError(
                "--resume: the run has no loggers of its own to go on with; go on without the options that take them, "
                f"or elsewhere: {in_a_new_directory(self.asked.continued.checkpoint)}"
            )
        kwargs["callbacks"] = self._callbacks(given)
        if any(isinstance(one, TimeBudget) for one in kwargs["callbacks"]) and not given["fast_dev_run"]:
            kwargs |= budget_option.without_other_ends(self.asked.typed)
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
                trainer = super().instantiate_trainer(**kwargs)
        except Exception as error:
            plain = {name: value for name, value in given.items() if name not in ("callbacks", "logger")}
            raise constructors.refusal("trainer", Trainer, error, plain) from error
        launchers.check_launcher(trainer)
        if self.subcommand == "fit":
            launchers.check_checkpoints(trainer)
        if self.tests:
            fit_and_test.check_can_test(trainer, has_directory=self._directory is not None)
        if (line := launchers.leave_pictures_out(trainer)) is not None:
            _print(line)
        child_processes.use_watched_launcher(trainer, self._let_go)
        is_typed = any("dirpath" in word for word in self.asked.typed)
        use_hashed_checkpoints(trainer, spares_other_runs=self.asked.goes_on and not is_typed)
        if (line := batch_size.keep_pictures_a_step(self.asked, self.datamodule, trainer)) is not None:
            _print(line)
        return trainer

    def _callbacks(self, given: Mapping[str, Any]) -> list[Callback]:
        callbacks = given["callbacks"] or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        # Its clock measures what the others do at the start.
        budget = budget_option.budget_of(self.asked.typed, self._get(self.config, "budget"), self._began)
        if self.asked.goes_on and any(type(one) is LearningRateFinder for one in callbacks):
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
        if self.asked.goes_on:
            written = self._get(self.config, "trainer")["callbacks"] or []
            written = written if isinstance(written, list) else [written]
            asked = [dict(one.get("init_args") or {}) for one in written]
            ours.insert(0, callback_options.CallbackOptions(list(zip(callbacks, asked, strict=True))))
        agree = RanksAgree(str(self.subcommand), self.config_dump)
        chosen = [agree, *ours, *callbacks, *self.extra_callbacks, self._signals]
        if (directory := self._directory) is not None:
            chosen.append(slurm_job.JobNote(self.asked.typed, lambda: directory.path))
        fit_directory.connect(chosen, self._signals, goes_on=self.asked.continued is not None)
        return chosen

    @property
    def tests(self) -> bool:
        """Whether a fit is asked to test what it has trained."""
        return self.subcommand == "fit" and bool(self._get(self.config, "test"))

    def after_instantiate_classes(self) -> None:
        """Prints the net where that is all that is asked for."""
        if self._get(self.config, "print_model"):
            print(summary(self.model))
            raise SystemExit(0)

    def before_fit(self) -> None:
        """Takes a run directory, and prints the net and what its options cost."""
        on_cpu = self.trainer.strategy.root_device.type == "cpu"
        is_synced = bool(self._get(self.config_init, "trainer")["sync_batchnorm"])
        hints = list(run_hints.on_cores(self.trainer.num_devices, cores()) if on_cpu else ())
        hints += list(run_hints.on_batch_norm(self.model, self.trainer.world_size, on_cpu=on_cpu, is_synced=is_synced))
        if self.trainer.is_global_zero:
            if self._directory is not None and self.trainer.loggers == self._directory.loggers:
                self._directory.open()
            print(summary(self.model))
            for line in run_hints.before_run(
                on_cpu=on_cpu,
                compiles=self.model.compiles,
                precision=str(self.trainer.precision),
                chosen="--trainer.precision" in self.command,
            ):
                print(line)
            for line in hints:
                print(line)

    def _let_go(self) -> None:
        """Lets go of the run directory, where the process is about to end from without."""
        if self._directory is not None:
            self._directory.close(failed=True, steps=self.trainer.global_step)

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs a verb, and tells of an error in one line."""
        with (
            fit_directory.ended(self.trainer, self._signals, self._directory),
            child_processes.end_together(self.trainer),
            nullcontext() if self._downloads else without_downloads(),
        ):
            try:
                super()._run_subcommand(subcommand)
            except Stopped as stopped:
                if not stopped.is_agreed:
                    rank_failure.tell_signal(stopped.signal, self.trainer)
                raise
            except Exception as error:
                parts = {"model": self.model, "data": self.datamodule, "trainer": self.trainer}
                refusal = failures.refusal_of_run(error, parts)
                if (other := rank_failure.exchange(refusal or error, self.trainer)) is not None:
                    raise other from error
                if refusal is None:
                    rank_failure.note_for_torchrun("".join(traceback.format_exception(error)))
                    raise
                raise refusal from error

    def after_fit(self) -> None:
        """Says where the run is."""
        has_trained = not self.asked.checkpoint or self._signals.first_step is not None
        _print(*last_lines.of_fit(self.trainer, has_trained=has_trained, tests=self.tests))

    def after_validate(self) -> None:
        """Says whether all pictures were scored."""
        _print(*last_lines.of_scores(self.trainer))

    def after_predict(self) -> None:
        """Says where the probabilities are."""
        _print(*last_lines.of_predict(self.trainer))

    def after_test(self) -> None:
        """Says what came out and how to look at it."""
        _print(*last_lines.of_test(self.trainer))


def run_trainer(
    args: Sequence[str],
    callbacks: Sequence[Callback] = (),
    began: float | None = None,
    said: Sequence[tuple[str, Mapping[str, Any]]] = (),
    load: threads.OtherLoad | None = None,
    own: Path | None = None,
) -> PetCifarCLI:
    """Completes the options of one of the Trainer's verbs and runs it.

    Args:
        args: The verb and its options; with ``--test`` a fit is tested at its end.
        callbacks: Callbacks that come after the default ones.
        began: The reading of ``time.monotonic`` when the command began; None takes now.
        said: What of the options another file says, by what the file is; its classes are checked as those of a config.
        load: What other processes do since then; None where nobody has watched.
        own: The run that the command has begun before its SLURM job was requeued.
    """
    log_filters.filter_messages()
    if own is not None and fit_and_test.is_left(args, own):
        return run_trainer(fit_and_test.words_of_test(own, {}), callbacks, load=load)
    asked = run_options.complete(args, said, own)
    try:
        cli = PetCifarCLI(asked, callbacks, began, load)
    except DataMissingError as error:
        if (other := with_place_of_data(error, asked)) is not None:
            raise other from error
        raise
    finally:
        asked.let_go()
    if cli.tests:
        words = fit_and_test.words_of_test(Path(str(cli.trainer.log_dir)), cli.config_dump["trainer"])
        run_trainer(words, callbacks, load=load)
    return cli


@rank_zero_only
def _print(*lines: str) -> None:
    for line in lines:
        print(printable(line))  # A value of a stranger's config may stand in it.

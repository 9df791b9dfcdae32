"""Whether a run has as many processes as ``torchrun`` or SLURM has started, and what a net in parts cannot do."""

import os
from typing import Any

from lightning import Callback, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

from pet_cifar.callbacks.images.base import ImageCallback
from pet_cifar.errors import InputError
from pet_cifar.hardware import cores

_RANKS = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"),
    *("JSM_NAMESPACE_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"),
)
"""The environment variables by which launchers, and Lightning itself, give a process its number."""
MOST_A_CORE = 16
"""How many processes of a run share a core at most: a config may come from anyone, and each takes half a gigabyte."""


def is_first_process() -> bool:
    """Whether this process is the first of those that its launcher has started, before Lightning knows of them."""
    return all(os.environ.get(name, "0").strip() in ("0", "") for name in _RANKS)


def check_launcher(trainer: Trainer) -> None:
    """Refuses other numbers of machines and processes than the launcher's, of which some would wait for ever.

    Processes that begin anew without the command line would know nothing of what it forbids, such as downloads.

    Raises:
        InputError: The numbers differ, the strategy starts such processes, or there are more of them than memory.
    """
    strategy: Any = trainer.strategy
    if isinstance(strategy.launcher, _MultiProcessingLauncher) and strategy.launcher._start_method != "fork":
        raise InputError(
            "--trainer.strategy: processes that are spawned cannot be handed the parts of a run; give "
            "--trainer.strategy ddp, whose processes read the command themselves"
        )
    most = MOST_A_CORE * cores()
    if trainer.num_devices > most and strategy.root_device.type == "cpu":
        raise InputError(
            f"--trainer.devices {trainer.num_devices}: these processes would share {cores()} cores, and a run takes at "
            f"most {most} there; give --trainer.devices {cores()}"
        )
    environment = getattr(strategy, "cluster_environment", None)
    own = f"--trainer.num_nodes {trainer.num_nodes} and --trainer.devices {trainer.num_devices}"
    if TorchElasticEnvironment.detect():
        # The net of a single device knows of no launcher, and each process would train one of its own.
        started = int(os.environ["WORLD_SIZE"])
        if trainer.num_nodes * trainer.num_devices != started:
            each = os.environ.get("LOCAL_WORLD_SIZE", "its number for each machine")
            raise InputError(
                f"torchrun has started {started} processes, and {own} make {trainer.num_nodes * trainer.num_devices}; "
                f"give --trainer.devices {each} --trainer.strategy ddp, and the machines as --trainer.num_nodes"
            )
    elif isinstance(environment, SLURMEnvironment):
        try:
            environment.validate_settings(num_devices=trainer.num_devices, num_nodes=trainer.num_nodes)
        except ValueError as error:
            nodes, tasks = (os.environ.get(f"SLURM_{name}", "?") for name in ("NNODES", "NTASKS_PER_NODE"))
            raise InputError(
                f"SLURM has started {tasks} tasks on each of {nodes} machines (--ntasks-per-node, --nodes), and the "
                f"run has {own}; give the same numbers"
            ) from error


def check_checkpoints(trainer: Trainer) -> None:
    """Refuses a strategy that writes checkpoints in parts, which nothing here could test, show or go on with.

    Raises:
        InputError: A run with checkpoints would write them in parts.
    """
    strategy: Any = trainer.strategy
    name = type(strategy).__name__
    if isinstance(strategy, DeepSpeedStrategy):
        instead = "give --trainer.strategy fsdp, which divides a net likewise"
    elif isinstance(strategy, ModelParallelStrategy) and strategy._save_distributed_checkpoint:
        instead = f"give {name} init_args with save_distributed_checkpoint: false"
    elif isinstance(strategy, FSDPStrategy) and strategy._state_dict_type == "sharded":
        instead = f"give {name} init_args with state_dict_type: full"
    else:
        return
    if trainer.checkpoint_callbacks:
        raise InputError(
            f"--trainer.strategy {name} writes each checkpoint as a directory of parts, which neither test nor "
            f"--resume can read; {instead}"
        )


def leave_pictures_out(trainer: Trainer) -> str | None:
    """Takes the callbacks that draw out of a run whose net is divided among the processes.

    One process draws, and it has a part of the net; it would wait for ever for the others, which go on.

    Returns:
        What to tell the user; None where nothing was taken out.
    """
    if not isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy | DeepSpeedStrategy):
        return None
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    kept = [one for one in callbacks if not isinstance(one, ImageCallback)]
    if len(kept) == len(callbacks):
        return None
    trainer.callbacks = kept  # type: ignore[attr-defined]
    return (
        f"--trainer.strategy {type(trainer.strategy).__name__} gives each process a part of the net, of which no "
        "picture can be drawn: TensorBoard gets none; pet-cifar draw --run RUN_DIR draws them after the run"
    )

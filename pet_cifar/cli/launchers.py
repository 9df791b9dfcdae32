"""Whether a run has as many processes as ``torchrun`` or SLURM has started."""

import os
from typing import Any

from lightning import Trainer
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from pet_cifar.errors import InputError


def check_launcher(trainer: Trainer) -> None:
    """Refuses other numbers of machines and processes than the launcher's, of which some would wait for ever.

    Raises:
        InputError: The numbers differ.
    """
    strategy: Any = trainer.strategy
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

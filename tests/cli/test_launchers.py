"""What the launchers of docs/clusters.md set, and what a run makes of it: which process of how many it is."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning import Trainer
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy

from pet_cifar.callbacks.images.base import ImageCallback
from pet_cifar.cli import stop_signals
from pet_cifar.cli.launchers import check_checkpoints
from pet_cifar.cli.main import main
from pet_cifar.cli.trainer import PetCifarCLI
from pet_cifar.errors import InputError
from pet_cifar.hardware import cores
from tests.cli.commands import refused
from tests.cli.ranks import free_port, torchrun_environment
from tests.conftest import HOME

PAGE = (HOME / "docs" / "clusters.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


def line_with(*words: str) -> list[str]:
    """The words of the command on the page that has these, with two machines in the place of N."""
    for block in BLOCKS:
        for line in block.replace("\\\n", " ").splitlines():
            found = shlex.split(line, comments=True)
            if all(word in found for word in words):
                return ["2" if word == "N" else word for word in found]
    raise AssertionError(f"docs/clusters.md has no line with {words}")


def options_of(line: list[str]) -> list[str]:
    """What a line of the page gives to fit; the pictures are digits, which are at hand."""
    options = line[line.index("fit") + 1 :]
    place = options.index("--config")
    return [*options[:place], "--config", "digits_residual", *options[place + 2 :]]


@pytest.fixture
def trainer_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the Trainer that a line of the page makes, and runs nothing."""
    made: list[Trainer] = []
    monkeypatch.setattr(PetCifarCLI, "_run_subcommand", lambda self, verb: made.append(self.trainer))

    def make(line: list[str]) -> Trainer:
        main(["fit", *options_of(line), "--trainer.accelerator", "cpu"])
        return made[-1]

    return make


def place_in(trainer: Trainer) -> tuple[type[ClusterEnvironment], int, int, int, int]:
    """The environment that was found; the processes of all; the number of this one, on its machine, and of that."""
    strategy: Any = trainer.strategy
    environment: ClusterEnvironment = strategy.cluster_environment
    return type(environment), trainer.world_size, trainer.global_rank, trainer.local_rank, trainer.node_rank


def test_one_process(trainer_of: Any) -> None:
    line = next(line for block in BLOCKS for line in block.splitlines() if line.startswith("pet-cifar fit"))
    assert "--trainer." not in line
    trainer = trainer_of([*shlex.split(line), "--trainer.devices", "1"])
    assert (trainer.world_size, trainer.is_global_zero) == (1, True)


def test_several_gpus_of_one_machine(trainer_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    line = line_with("pet-cifar", "--trainer.devices", "N")
    assert place_in(trainer_of(line)) == (LightningEnvironment, 2, 0, 0, 0)
    # The first process starts the others with the same command, and tells them their number.
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert place_in(trainer_of(line)) == (LightningEnvironment, 2, 1, 1, 0)


def test_torchrun_on_each_of_several_machines(trainer_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.run import get_args_parser

    line = line_with("torchrun")
    launched = get_args_parser().parse_args(line[1:])
    processes = int(launched.nnodes) * int(launched.nproc_per_node)
    for name, value in torchrun_environment(11, processes, 29500, nodes=int(launched.nnodes)).items():
        monkeypatch.setenv(name, value)
    assert place_in(trainer_of(line)) == (TorchElasticEnvironment, 16, 11, 3, 1)


SLURM = {
    "JOB_ID": "4711",
    "JOB_NAME": "train",
    "JOB_NODELIST": "gpu[07-08]",
    "NODELIST": "gpu[07-08]",
    "NNODES": "2",
    "NTASKS": "16",
    "NTASKS_PER_NODE": "8",
    "PROCID": "11",
    "LOCALID": "3",
    "NODEID": "1",
}
"""What SLURM sets for the twelfth of 16 tasks on two machines."""


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


@pytest.mark.usefixtures("slurm")
def test_slurm_with_requeue(trainer_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = [block for block in BLOCKS if "#SBATCH" in block]
    asked = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", script))
    # The line and the head of the script say the same.
    line = line_with("srun")
    assert (asked["nodes"], asked["ntasks-per-node"]) == (SLURM["NNODES"], SLURM["NTASKS_PER_NODE"])
    trainer = trainer_of(line)
    assert place_in(trainer) == (SLURMEnvironment, 16, 11, 3, 1)
    strategy: Any = trainer.strategy
    assert strategy.cluster_environment.main_address == "gpu07"
    # SLURM asks with the signal that a run answers, and may put the job into the queue again.
    assert "#SBATCH --requeue" in script.splitlines()
    assert asked["signal"].partition("@")[0] in [one.name for one in stop_signals._signals()]
    # Where one task fails, the others of the job do not wait for it.
    assert "--kill-on-bad-exit=1" in line


@pytest.mark.usefixtures("slurm")
@pytest.mark.parametrize("option", ["--trainer.num_nodes", "--trainer.devices"])
def test_other_numbers_than_slurms_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*options_of(line_with("srun")), "--trainer.accelerator", "cpu", option, "3"]
    message = refused(capsys, "fit", *words)
    assert f"{option} 3" in message
    assert "SLURM has started 8 tasks on each of 2 machines" in message


@pytest.mark.parametrize(
    ("devices", "told"), [("1", "--trainer.devices 1 make 1"), ("3", "--trainer.devices 3 make 3")]
)
def test_other_numbers_than_torchruns_are_refused(
    devices: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in torchrun_environment(1, 2, 29500).items():
        monkeypatch.setenv(name, value)
    fit = ["fit", "--config", "digits_residual", "--trainer.accelerator", "cpu", "--trainer.devices", devices]
    message = refused(capsys, *fit)
    assert "torchrun has started 2 processes" in message
    assert told in message
    assert "give --trainer.devices 2" in message


def test_a_net_in_parts_draws_no_pictures(trainer_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["fit", "--config", "digits_residual", "--trainer.devices", "1"]
    whole = [one for one in trainer_of(line).callbacks if isinstance(one, ImageCallback)]
    assert whole
    capsys.readouterr()
    strategy = "{class_path: lightning.pytorch.strategies.ModelParallelStrategy, init_args: "
    strategy += "{save_distributed_checkpoint: false}}"
    parts = trainer_of([*line, "--trainer.strategy", strategy])
    assert not [one for one in parts.callbacks if isinstance(one, ImageCallback)]
    assert "--trainer.strategy ModelParallelStrategy" in capsys.readouterr().out


def test_checkpoints_in_parts_are_refused_before_the_first_step(capsys: pytest.CaptureFixture[str]) -> None:
    strategy = "{class_path: lightning.pytorch.strategies.ModelParallelStrategy}"
    fit = ["fit", "--config", "digits_residual", "--trainer.accelerator", "cpu", "--trainer.strategy", strategy]
    message = refused(capsys, *fit)
    assert "--trainer.strategy ModelParallelStrategy" in message
    assert "save_distributed_checkpoint: false" in message
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize(
    ("cls", "attributes", "told"),
    [
        (FSDPStrategy, {"_state_dict_type": "sharded"}, "state_dict_type: full"),
        (FSDPStrategy, {"_state_dict_type": "full"}, None),
        (ModelParallelStrategy, {"_save_distributed_checkpoint": False}, None),
        (DeepSpeedStrategy, {}, "--trainer.strategy fsdp"),
        (DDPStrategy, {}, None),
    ],
)
@pytest.mark.parametrize("saves", [True, False])
def test_which_strategies_write_parts(
    cls: type[Strategy], attributes: dict[str, Any], told: str | None, saves: bool
) -> None:
    # Two of them cannot be made without a GPU.
    strategy = cls.__new__(cls)
    vars(strategy).update(attributes)
    trainer: Any = SimpleNamespace(strategy=strategy, checkpoint_callbacks=[object()] if saves else [])
    if told is None or not saves:
        check_checkpoints(trainer)
        return
    with pytest.raises(InputError, match=re.escape(told)):
        check_checkpoints(trainer)


@pytest.mark.slow
def test_two_machines_on_the_loopback() -> None:
    """Two torchruns of one process each find each other, as those of two machines do."""
    tiny = ["--model.widths", "[4]", "--data.batch_size", "200", "--trainer.max_epochs", "1"]
    rest = ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp"]
    where = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"localhost:{free_port()}"]
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1", *where),
        *("-m", "pet_cifar", "fit", "--config", "digits_residual", *tiny, "--trainer.accelerator", "cpu", *rest),
    ]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=Path.cwd())
        for _ in range(2)
    ]
    said = [one.communicate(timeout=400)[0] for one in started]
    assert [one.returncode for one in started] == [0, 0], said
    assert sum("run directory: " in text for text in said) == 1
    assert [path.name for path in Path("lightning_logs/digits_residual").iterdir()] == ["version_0"]


def test_processes_that_are_spawned_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp_spawn"]
    assert "--trainer.strategy ddp," in refused(capsys, "fit", "--config", "digits_residual", *words)


def test_more_processes_than_a_machine_has_memory_for_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trainer.accelerator", "cpu", "--trainer.devices", "100000"]
    line = refused(capsys, "fit", "--config", "digits_residual", *words)
    assert "--trainer.devices 100000: " in line
    assert line.endswith(f"give --trainer.devices {cores()}")

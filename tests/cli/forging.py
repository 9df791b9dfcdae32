"""Configs and checkpoints that hold what a stranger has put there."""

from pathlib import Path
from typing import Any

import torch
import yaml

CONFIG: dict[str, Any] = {
    "model": {"class_path": "ResidualCNN", "init_args": {"widths": [8]}},
    "data": {"class_path": "DigitsDataModule"},
    "trainer": {"max_epochs": 1, "limit_train_batches": 2},
}
QUIET = ("--trainer.logger", "false", "--trainer.enable_progress_bar", "false")


def written(config: dict[str, Any], name: str = "a_config.yaml") -> str:
    """A config file that has these keys in the place of those of `CONFIG`."""
    Path(name).write_text(yaml.safe_dump(CONFIG | config))
    return name


def forged(own: Path, **parts: Any) -> str:
    """A checkpoint whose parts, such as its config, are others."""
    torch.save(torch.load(own, weights_only=True) | parts, "forged.ckpt")
    return "forged.ckpt"

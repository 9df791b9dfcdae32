"""The config of a run, which is kept in its directory and in every checkpoint."""

from functools import cached_property
from typing import Any

from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from pet_cifar.cli.parser import Parser


class SaveConfig(SaveConfigCallback):
    """Saves the config of a ``fit`` in the run directory, and in every checkpoint."""

    def __init__(self, parser: Parser, config: Namespace, **arguments: Any) -> None:
        config = config.clone()
        # These options belong to this one call, so that a run repeated from the file starts anew.
        config["ckpt_path"], config["run"], config["print_model"] = None, None, False
        config["trust"] = None  # No file may trust a module.
        config.pop("resume", None)  # Only fit has it, and the file is for all verbs.
        super().__init__(parser, config, **arguments)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes ``config.yaml``; a test leaves the run's own as it is."""
        if stage == "fit" and trainer.loggers:  # Without a logger Lightning would name the working directory.
            super().setup(trainer, pl_module, stage)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the config as text."""
        checkpoint["config"] = self._text

    @cached_property
    def _text(self) -> str:
        # It takes the parser 50 ms to write it, which short epochs would notice.
        return str(self.parser.dump(self.config, skip_none=False))

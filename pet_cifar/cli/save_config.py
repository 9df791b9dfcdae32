"""The config of a run, which is kept in its directory and in every checkpoint."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from pet_cifar.cli.parser import Parser
from pet_cifar.errors import InputError


class SaveConfig(SaveConfigCallback):
    """Saves the config of a ``fit`` in the run directory, and in every checkpoint."""

    def __init__(self, parser: Parser, config: Namespace, **arguments: Any) -> None:
        config = config.clone()
        # These options belong to this one call, so that a run repeated from the file starts anew.
        config["ckpt_path"], config["run"], config["print_model"] = None, None, False
        config["trust"] = None  # No file may trust a module.
        for option in ("resume", "test"):  # Only fit has them, and the file is for all verbs.
            config.pop(option, None)
        super().__init__(parser, config, **arguments)
        # The parser takes a tenth of a second to write the config, and no epoch changes it.
        self._text = ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes ``config.yaml``; a test leaves the run's own as it is."""
        if stage == "fit" and trainer.loggers:  # Without a logger Lightning would name the working directory.
            # Every process asks, since Lightning tells the others what the first one knows.
            directory = trainer.log_dir
            file = Path(directory or "") / self.config_filename
            if file.is_dir():
                raise InputError(f"cannot write {file}: it is a folder; move it away")
            super().setup(trainer, pl_module, stage)
            if trainer.is_global_zero and directory is not None:
                self._text = file.read_text()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the config as text."""
        self._text = self._text or self.parser.dump(self.config, skip_none=False)
        checkpoint["config"] = self._text

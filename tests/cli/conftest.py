"""A short run whose checkpoint other tests read and forge."""

import os
from pathlib import Path

import pytest
import yaml

from pet_cifar.cli.main import main
from tests.cli.forging import CONFIG


@pytest.fixture(scope="session")
def own_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a run of two steps on digits."""
    home, folder = Path.cwd(), tmp_path_factory.mktemp("own")
    os.chdir(folder)
    try:
        Path("a_config.yaml").write_text(yaml.safe_dump(CONFIG))
        main(["fit", "--config", "a_config.yaml", "--trainer.enable_progress_bar", "false"])
    finally:
        os.chdir(home)
    return folder / "lightning_logs/a_config/version_0/checkpoints/last.ckpt"

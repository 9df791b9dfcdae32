"""What a test or a prediction scores: the run's own test pictures, a part of them, or other data."""

import re
from typing import Literal

from lightning import Trainer

from pet_cifar.data.datamodule import image_data_of


def name_of_results(trainer: Trainer, stage: Literal["test", "predict"]) -> str:
    """The name under which results are kept: the stage's own for all of the run's own test pictures.

    Other data and a part of the pictures have names of their own, so that they replace no result of the run.

    Args:
        trainer: The trainer, which is in this stage or has just ended it.
        stage: What it does.
    """
    data = image_data_of(trainer)
    name: str = stage
    if data is not None and data.is_other_data:
        root = re.sub(r"[^\w.-]+", "_", data.root.absolute().name) or "data"
        name += f"_on_{root}_{data.fingerprint[:8]}"
    if stage == "test":
        loader, scored = trainer.test_dataloaders, sum(trainer.num_test_batches)
    else:
        loader, scored = trainer.predict_dataloaders, sum(trainer.num_predict_batches)
    if loader is not None and scored < len(loader):
        name += f"_of_{scored}_batches"
    return name

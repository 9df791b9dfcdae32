"""What a test scores: the run's own test pictures, a part of them, or other data."""

import re

from lightning import Trainer

from pet_cifar.data.datamodule import image_data_of

OWN_TEST = "test"


def name_of_test(trainer: Trainer) -> str:
    """The name under which a test's results are kept: ``test`` for all of the run's own test pictures.

    Other data and a part of the pictures have names of their own, so that they replace no result of the run.

    Args:
        trainer: The trainer, which tests at this moment or has just done so.
    """
    data = image_data_of(trainer)
    name = OWN_TEST
    if data is not None and data.is_other_data:
        root = re.sub(r"[^\w.-]+", "_", data.root.absolute().name) or "data"
        name += f"_on_{root}_{data.fingerprint[:8]}"
    loaders, scored = trainer.test_dataloaders, sum(trainer.num_test_batches)
    if loaders is not None and scored < len(loaders):
        name += f"_of_{scored}_batches"
    return name

"""What of the libraries' messages reaches the user."""

import logging
import sys
import warnings


def set_up_messages() -> None:
    """Shows our own log, and hides what libraries say that no user can act on."""
    log = logging.getLogger("pet_cifar")
    if not log.handlers:
        log.addHandler(logging.StreamHandler(sys.stderr))
        log.setLevel(logging.INFO)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "Tip:" not in record.msg)
    for message in (
        "LightningCLI's args parameter is intended",  # completing the options from a checkpoint needs it
        ".*isinstance.treespec, LeafSpec.. is deprecated",  # Lightning 2.6 with torch 2.11 and newer
        "Experiment logs directory .* exists and is not empty",  # the config was written there just before
        "The number of training batches .* is smaller than the logging interval",
        "The '.*_dataloader' does not have many workers",  # ours are threads
        "It is recommended to use .*sync_dist=True",  # our metrics have exchanged what they count
        "Be aware that when using `ckpt_path`, callbacks",  # a test keeps no checkpoints
        "Found .* in eval mode at the start of training",  # a frozen base stays in evaluation
        "The dirpath has changed from",  # a run that goes on has a directory of its own
        "Checkpoint directory .* exists and is not empty",
    ):
        warnings.filterwarnings("ignore", message=message)

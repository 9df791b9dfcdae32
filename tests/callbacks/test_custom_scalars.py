import re

from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from pet_cifar.callbacks import CustomScalars, ThroughputMonitor
from tests.callbacks.event_files import Events
from tests.callbacks.small_runs import digits, run, small


def test_curves_put_training_and_validation_into_one_chart() -> None:
    _, directory = run(small(), digits(), [ThroughputMonitor(), CustomScalars()])
    events = Events(directory)
    layout = Layout.FromString(events.tensor("custom_scalars__config__"))
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert charts["accuracy"] == ["^train/acc$", "^val/acc$"]
    # Every chart has something to show.
    for patterns in charts.values():
        assert any(re.search(pattern, tag) for pattern in patterns for tag in events.scalars), patterns

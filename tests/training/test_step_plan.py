"""How many steps fit into a time, and how far a run has come."""

import pytest

from pet_cifar.training.step_plan import Pace, StepPlan


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (10.5, (10, False)),  # It ends before the pause.
        (21.0, (21, True)),  # The pause after 20 steps would take all that is left.
        (26.0, (21, False)),
        (25.0 + 2 * 105 + 7.5, (20 + 200 + 7, False)),
        (0.5, (0, False)),
        (-3.0, (0, False)),
    ],
)
def test_steps_and_pauses_fill_the_time(seconds: float, wanted: tuple[int, bool]) -> None:
    assert Pace(step=1.0, pause=5.0, until_pause=20, between=100).steps_within(seconds) == wanted


def test_within_a_pause_the_run_goes_on_where_its_rest_is_shorter_than_the_pause() -> None:
    assert Pace(step=1.0, pause=5.0, until_pause=0, between=100).steps_within(3.5) == (3, True)


def test_the_share_grows_with_every_step_and_ends_at_one_whatever_is_planned_anew() -> None:
    plan = StepPlan()
    assert plan.progress(3) == 0
    shares = []
    plan.replan(3, left=100)
    for step in range(3, 80):
        if step == 40:  # The steps have become three times as slow.
            plan.replan(step, left=20)
        shares.append(plan.progress(step))
    assert shares == sorted(shares)
    assert shares[37] == pytest.approx(0.37)
    assert plan.progress(50) == pytest.approx(0.37 + 0.63 / 2)
    assert plan.progress(59) < plan.progress(60) == 1


def test_a_run_that_goes_on_begins_at_its_share() -> None:
    plan = StepPlan()
    plan.start(500, 0.4)
    assert plan.progress(500) == 0.4
    plan.replan(504, left=6)
    assert plan.progress(507) == pytest.approx(0.7)

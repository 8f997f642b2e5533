import pytest

from support.stepping import Loop, ratios


def test_a_run_is_measured_against_the_reference_on_either_side_of_it():
    loop = Loop(steps=600, run=lambda: None, env=None)
    # 600 steps in 2 s, beside (100 + 200) / 2 and (200 + 400) / 2 steps/s of the reference.
    assert ratios(loop, [2.0, 2.0], [100.0, 200.0, 400.0]).tolist() == [2.0, 1.0]


def test_parts_of_a_measurement_are_added_in_time_of_the_reference():
    loop = Loop(steps=600, run=lambda: None, env=None)
    # Two parts of 600 steps each, in which the reference would have taken 300 and 600 steps.
    assert ratios(loop, [2.0, 2.0], [100.0, 200.0, 400.0], parts=2).tolist() == [pytest.approx(4 / 3)]

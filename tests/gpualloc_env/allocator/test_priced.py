"""Assumptions that depend on what the bill weighs, which the owner of an allocator can tell it."""

import numpy as np
import pytest

from gpualloc_env import Batch, load_scenario
from gpualloc_env.allocator.actions import ASSUMPTIONS, PRICED, outputs_for
from gpualloc_env.allocator.allocator import Allocator, AllocatorError
from gpualloc_env.allocator.receding_horizon import Constants
from training.learning.allocators.action_transform import priced_assumptions

SETTINGS = priced_assumptions(load_scenario("serverless")).settings
UNPRICED = "ppo-residual-serverless"


def assumed(level, slope, **told):
    """What outputs of one agent assume: all levels alike, and all slopes."""
    levels = np.full((1, 1, outputs_for("assumptions", 1)), level)
    outputs = np.concatenate([levels, slope - PRICED[None, None]], axis=-1)
    assert outputs.shape[-1] == outputs_for("priced-assumptions", 1)
    return ASSUMPTIONS["priced-assumptions"](SETTINGS | told)(outputs)


def plain(outputs):
    return ASSUMPTIONS["assumptions"](SETTINGS)(np.full((1, 1, outputs_for("assumptions", 1)), outputs))


@pytest.mark.parametrize(
    ("told", "outputs"),
    [
        ({}, 0.5),  # not told: 1 s
        ({"bill_s": 1.0}, 0.5),
        ({"bill_s": np.e}, 0.5 + 0.25),
        ({"bill_s": 1 / np.e**2}, 0.5 - 0.5),
        ({"bill_s": 1e9}, 0.5 + 0.25 * np.log(100)),  # as far as it goes
    ],
)
def test_outputs_are_levels_and_slopes_in_the_logarithm_of_the_bill(told, outputs):
    found, expected = assumed(0.5, 0.25, **told), plain(outputs)
    assert found.constants == pytest.approx(expected.constants, rel=1e-12)
    assert found.corrections == pytest.approx(expected.corrections, rel=1e-12)


def test_untrained_the_controllers_bill_is_in_proportion_to_the_objectives():
    outputs, bill = np.zeros((1, 3, outputs_for("priced-assumptions", 1))), Constants._fields.index("bill")
    found = [ASSUMPTIONS["priced-assumptions"](SETTINGS | {"bill_s": each})(outputs) for each in (1.0, 3.0)]
    assert (found[1].constants / found[0].constants)[0] == pytest.approx(np.where(np.arange(8) == bill, 3, 1))
    assert not found[1].corrections.any()


@pytest.mark.parametrize("bill", [0.0, -1.0, np.inf])
def test_a_bill_that_weighs_nothing_is_refused(bill):
    with pytest.raises(ValueError, match="bill_s must be above 0 and finite"):
        assumed(0.0, 0.0, bill_s=bill)


def test_an_allocator_that_cannot_be_told_refuses_to_be():
    with pytest.raises(AllocatorError, match="decides alike whatever the bill weighs; leave bill_s out"):
        Allocator.pretrained(UNPRICED, bill_s=0.3)


def test_the_more_the_bill_weighs_the_less_is_held():
    batch = Batch(load_scenario("magentic"), 20)
    batch.reset()
    for _ in range(100):
        batch.step(np.full((20, 4), 0.25))

    def held(**told):
        allocator = Allocator.pretrained("ppo-mpc-priced-magentic", **told)
        assert allocator(batch.observation) == pytest.approx(allocator.decide(batch.view), abs=0.02)
        return allocator.decide(batch.view).sum()

    assert held(bill_s=0.3) > held(bill_s=1.0) > held(bill_s=4.0) > 0
    assert held() == held(bill_s=1.0)


@pytest.mark.parametrize("bill", [0.0, -1.0, np.nan, np.inf, "1", True])
def test_a_bill_that_is_no_number_of_seconds_is_refused_by_its_value(bill):
    with pytest.raises(AllocatorError, match="bill_s must be a number of seconds above 0, got "):
        Allocator.pretrained("ppo-mpc-priced-magentic", bill_s=bill)

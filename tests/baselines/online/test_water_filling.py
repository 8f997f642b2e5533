"""Throughput curves, their inverses, and the conditions that a filled platform must meet."""

import numpy as np
import pytest
from support.views import view

from baselines.online.water_filling import CLAIM, LOGARITHM, MINIMUM, THROUGHPUT, fill, spread
from gpualloc_env.simulation.curves import needed_share, share_to_empty, speedup, whole_slices
from gpualloc_env.simulation.observation import pack


def filled(utility, weight, kappa, capacity=1.0, least=0.0, most=1.0, floor=0.0):
    claims, shares = np.empty(len(weight), CLAIM), np.empty(len(weight))
    claims["weight"], claims["kappa"], claims["least"], claims["most"] = weight, kappa, least, most
    price = fill(utility, claims, float(capacity), float(floor), shares)
    return shares, price


def needed(queue, max_share=1.0, **agent):
    """What an agent of 10 requests/s needs where a change of its share takes a tenth of a step."""
    seen = view(queue=[queue], max_share=max_share, reallocation_s=0.1, deadband=0.02, **agent)
    packed = pack(seen)
    return share_to_empty(packed.state[0, 0], packed.agents[0, 0], packed.settings[0])


def curve(share, kappa):
    return np.where(kappa == 0, share, share * (1 + kappa) / (share + kappa))


def slope(share, kappa):
    return np.where(kappa == 0, 1.0, (1 + kappa) * kappa / np.maximum(share + kappa, 1e-300) ** 2)


@pytest.mark.parametrize("kappa", [0.0, 0.5, 2.0])
def test_the_needed_share_inverts_the_curve(kappa):
    for share in (0.0, 0.1, 0.5, 1.0):
        assert needed_share(speedup(share, kappa), kappa) == pytest.approx(share, abs=1e-15)


def test_half_the_throughput_of_a_saturating_agent_needs_a_third_of_a_gpu():
    # κ = 1: f(1/3) = (2/3) / (4/3).
    assert needed_share(0.5, 1.0) == pytest.approx(1 / 3)
    assert needed_share(2.0, 1.0) == np.inf


def test_needs_are_rounded_up_to_whole_slices():
    assert whole_slices(0.3, 0.25) == 0.5
    assert whole_slices(0.25 + 1e-9, 0.25) == 0.25
    assert whole_slices(0.3, 0.0) == 0.3


@pytest.mark.parametrize(
    ("held", "loading", "share"),
    [
        (0.9, 0.0, 0.5),  # 4.5 requests in the 0.9 s that a reallocation leaves, at 10 a second
        (0.45, 0.0, 0.45),  # what it holds is what it needs: a whole second
        (0.45, 0.1, 0.5625),  # 0.5 after loading is a change, which leaves 0.8 s: 4.5 / 8
        (0.9, 1.5, 0.01),  # still loading at the end of the step: a foothold
    ],
)
def test_the_share_that_empties_a_queue_in_what_is_left_of_the_step(held, loading, share):
    assert needed(4.5, share=held, loading=loading) == pytest.approx(share)


def test_an_empty_queue_needs_nothing_and_no_agent_more_than_it_can_hold():
    assert needed(0.0, kappa=1.0, share=0.5) == 0.0
    assert needed(1e9, kappa=1.0, share=0.5, max_share=0.75) == 0.75


def test_equal_marginal_throughput_by_hand():
    # κ = 1: 2 w / (g + 1)² is equal where g + 1 is as √w: 1.8 and 1.2 of 3.
    shares, price = filled(THROUGHPUT, [9, 4], [1, 1])
    assert shares == pytest.approx([0.8, 0.2]) and price == pytest.approx(18 / 1.8**2)


def test_linear_throughput_goes_to_the_heaviest_and_ties_are_split():
    assert filled(THROUGHPUT, [1, 3, 2], [0, 0, 0])[0] == pytest.approx([0, 1, 0])
    assert filled(THROUGHPUT, [3, 3, 2], [0, 0, 0])[0] == pytest.approx([0.5, 0.5, 0])


def test_linear_logarithms_share_in_proportion_to_their_weights():
    assert filled(LOGARITHM, [3, 1], [0, 0])[0] == pytest.approx([0.75, 0.25])


def test_the_least_throughput_is_raised_together():
    # κ = 1 serves f = 1/2 with 1/3 of a GPU, a linear curve with 1/2: 5/6 in all.
    assert filled(MINIMUM, [1, 1], [1, 0], capacity=5 / 6)[0] == pytest.approx([1 / 3, 1 / 2])
    assert filled(MINIMUM, [2, 1], [0, 0])[0] == pytest.approx([2 / 3, 1 / 3])


def test_a_price_floor_leaves_capacity_unused():
    # κ = 1: 16 / (g + 1)² = 9 at g = 1/3.
    assert filled(THROUGHPUT, [8], [1], floor=9)[0] == pytest.approx([1 / 3])


def test_nobody_gets_more_than_the_most_or_less_than_the_least():
    shares, _ = filled(LOGARITHM, [1000, 1, 0], [0, 0, 0], least=0.1, most=0.5)
    assert shares == pytest.approx([0.5, 0.4, 0.1])
    assert filled(LOGARITHM, [1, 1], [0, 0], least=1.0)[0] == pytest.approx([0.5, 0.5])


def test_the_rest_is_spread_equally_and_an_excess_scaled():
    shares = np.array([0.2, 0.4])
    spread(shares, 1.0, 0.55)
    assert shares == pytest.approx([0.4, 0.55])
    shares = np.array([1.5, 0.5])
    spread(shares, 1.0, 1.0)
    assert shares == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize("utility", [THROUGHPUT, LOGARITHM, MINIMUM])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12])
def test_the_conditions_of_an_optimum_hold(utility, scale):
    rng = np.random.default_rng(0)
    binding = 0
    for _ in range(200):
        count = int(rng.integers(1, 9))
        weight, kappa = scale * rng.gamma(0.5, 1.0, count), rng.uniform(0.2, 3.0, count)
        capacity, most = rng.uniform(0.2, 2.0), rng.uniform(0.2, 1.0)
        shares, price = filled(utility, weight, kappa, capacity, most=most)
        assert (shares >= 0).all() and (shares <= most).all()
        if count * most <= capacity:
            assert shares == pytest.approx(np.full(count, most))
            continue
        binding += 1
        assert shares.sum() == pytest.approx(capacity, rel=1e-9)
        with np.errstate(divide="ignore"):
            gain = {
                THROUGHPUT: weight * slope(shares, kappa),
                LOGARITHM: weight * slope(shares, kappa) / curve(shares, kappa),
                MINIMUM: weight / curve(shares, kappa),
            }[utility]
        inside = (shares > 1e-9) & (shares < most - 1e-9)
        assert gain[inside] == pytest.approx(price, rel=1e-6)
        assert (gain[shares <= 1e-9] <= price * (1 + 1e-6)).all() or utility != THROUGHPUT
        assert (gain[shares >= most - 1e-9] >= price * (1 - 1e-6)).all()
    assert binding > 100

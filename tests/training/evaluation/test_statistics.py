"""Intervals over episodes and training seeds, on numbers that can be checked by hand."""

import numpy as np
import pytest

from training.evaluation.statistics import Estimate, corrected, episodes_needed, interval
from training.evaluation.verdicts import Entry, difference, verdict


def entry(name, objective):
    return Entry(name, "online", np.atleast_2d(np.asarray(objective, dtype=float)), {})


def test_the_interval_of_symmetric_values_is_students():
    # Mean 0, deviation √(10/4); t(0.975, 4) = 2.776.
    mean, low, high = interval([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert mean == 0 and high == -low == pytest.approx(2.776 * np.sqrt(2.5 / 5), rel=1e-3)


def test_the_interval_is_longer_on_the_side_of_the_long_tail():
    mean, low, high = interval([0.0] * 9 + [10.0])
    assert high - mean > 1.3 * (mean - low) > 0


def test_one_sample_has_no_interval_unless_all_episodes_are_alike():
    alone = interval([3.0])
    assert alone.mean == 3 and np.isnan([alone.low, alone.high]).all()
    assert interval([3.0], varies=False) == Estimate(3.0, 3.0, 3.0)
    assert np.isnan(interval([np.nan]).mean)
    assert interval([1.0, np.nan, 1.0]) == Estimate(1.0, 1.0, 1.0)


def test_a_single_episode_names_no_winner():
    worse, better = entry("worse", [2.0]), entry("better", [1.0])
    assert verdict(better, worse, 1)[0] == "ties"
    assert verdict(better, worse, 1, varies=False)[0] == "wins"
    assert verdict(worse, better, 1, varies=False)[0] == "loses"


def test_training_seeds_have_as_many_degrees_of_freedom_as_seeds_but_one():
    # Five seeds around 10 with deviation √10, all episodes alike: t(0.975, 4) = 2.776.
    seeds = np.array([6.0, 8.0, 10.0, 12.0, 14.0])[:, None] + np.zeros(50)
    mean, low, high = interval(seeds)
    assert mean == 10 and (high - low) / 2 == pytest.approx(2.776 * np.sqrt(10 / 5), rel=1e-3)


def test_chance_of_seeds_and_of_episodes_add_as_squares():
    episodes = np.random.default_rng(0).normal(size=200)
    seeds = np.array([-1.0, 0.0, 1.0])[:, None]
    of_episodes, of_seeds = interval(episodes), interval(np.zeros(200) + seeds)
    both = interval(episodes + seeds)
    for side in ("low", "high"):
        reach = [getattr(each, side) - each.mean for each in (of_episodes, of_seeds, both)]
        assert reach[2] == pytest.approx(np.copysign(np.hypot(reach[0], reach[1]), reach[0]))


def test_a_verdict_allows_for_an_episode_that_was_not_drawn():
    values = np.random.default_rng(1).normal(1, 1, 20)
    plain, careful = interval(values), difference(values[None], np.zeros((1, 20)))
    assert careful.mean == plain.mean and careful.low < plain.low < plain.high < careful.high
    many = np.random.default_rng(1).normal(1, 1, 20_000)
    widths = [np.ptp(each[1:]) for each in (interval(many), difference(many[None], np.zeros((1, 20_000))))]
    assert widths[1] < 1.1 * widths[0]


def test_a_long_tail_on_one_side_does_not_hide_what_the_other_shows():
    # Always worse, now and then by far: nothing drawn says that it could be better.
    worse = np.random.default_rng(1).lognormal(0, 1.5, 100)
    assert verdict(entry("worse", worse), entry("reference", np.zeros(100)), 42)[0] == "loses"


@pytest.mark.parametrize("comparisons", [1, 30])
def test_as_many_episodes_as_are_needed_tell_a_difference_in_four_cases_of_five(comparisons):
    generator = np.random.default_rng(2)
    drawn = generator.lognormal(0, 1, 20_000) - np.exp(0.5)
    needed = episodes_needed(drawn, 0.8, comparisons)
    reference = entry("reference", np.zeros(needed))
    told = [
        verdict(entry("a", 0.8 + generator.choice(drawn, needed)), reference, comparisons)[0]
        for _ in range(400)
    ]
    assert 0.72 < np.mean([each == "loses" for each in told]) < 0.95
    assert "wins" not in told


def test_smaller_differences_and_more_comparisons_need_more_episodes():
    drawn = np.random.default_rng(3).normal(size=1000)
    needed = [
        episodes_needed(drawn, effect, comparisons)
        for effect, comparisons in ((1.0, 1), (0.5, 1), (0.5, 30), (0.01, 30))
    ]
    assert needed == sorted(needed) and needed[0] >= 2
    assert episodes_needed(drawn, 1e-9, 1) == np.inf


def test_the_level_is_shared_among_comparisons():
    assert corrected(0) == corrected(1) == 0.95 and corrected(10) == pytest.approx(0.995)

"""Whether verdicts err as rarely as they promise, on the differences between this project's own policies."""

import numpy as np
import pytest

from baselines import policy_for
from gpualloc_env.metrics import objectives
from gpualloc_env.scenario.loading import load_scenario
from training.evaluation.evaluate import rollout
from training.evaluation.statistics import corrected, interval

pytestmark = pytest.mark.slow

EPISODES = 2000  # of which samples are drawn
# Near-equal in the mean, or the same policy with a share a hundredth smaller: many small differences
# one way and few large ones the other way, which is what misleads an interval.
PAIRS = (
    ("proportional-fair", "autoscaler"),
    ("hysteresis", "autoscaler"),
    ("receding-horizon less", "receding-horizon"),
    ("adaptive", "receding-horizon"),
)
COMPARISONS = 15
REPETITIONS = 1500


@pytest.fixture(scope="module")
def differences():
    """J − J by episode of each pair on serverless, less its mean: two equally good policies."""
    scenario = load_scenario("serverless")

    def played(name):
        policy = policy_for(name.removesuffix(" less"), "serverless")
        decide = (lambda view: 0.99 * policy(view)) if name.endswith(" less") else policy
        return objectives(rollout(decide, scenario, EPISODES, 10_000, record=False))

    found = {name: played(name) for name in {name for pair in PAIRS for name in pair}}
    return {pair: found[pair[0]] - found[pair[1]] for pair in PAIRS}


def false_verdicts(values, size, comparisons, repetitions=REPETITIONS):
    """How many of so many samples of equally good policies name a winner."""
    generator = np.random.default_rng(size)
    centred, level = values - values.mean(), corrected(comparisons)
    found = 0
    for _ in range(repetitions):
        drawn = interval(generator.choice(centred, size), level, unseen=True)
        found += drawn.low > 0 or drawn.high < 0
    return found


def bound(rate):
    """The most false verdicts that chance explains at a rate, three deviations above the mean."""
    return rate * REPETITIONS + 3 * np.sqrt(rate * REPETITIONS)


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
@pytest.mark.parametrize("size", [2, 5, 10, 20, 100])
def test_equally_good_policies_tie_as_often_as_promised(differences, pair, size):
    for comparisons in (1, COMPARISONS):
        found = false_verdicts(differences[pair], size, comparisons)
        assert found <= bound(0.05 / comparisons), f"{found} of {REPETITIONS} at {comparisons} comparisons"


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS[2:], ids=" and ".join)
def test_policies_that_do_differ_are_told_apart_with_the_default_episodes(differences, pair):
    generator, level = np.random.default_rng(0), corrected(42)  # as many comparisons as on the leaderboard
    drawn = (generator.choice(differences[pair], 100) for _ in range(300))
    assert np.mean([interval(each, level, unseen=True).low > 0 for each in drawn]) > 0.95


@pytest.mark.parametrize(
    "scale", [0.3, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (0.0, 3.0))]
)
def test_training_seeds_that_are_equally_good_tie_as_often_as_promised(scale):
    # Five seeds on the same hundred episodes, whose chance is skewed; each seed has its own mean.
    generator = np.random.default_rng(5)
    found = {1: 0, COMPARISONS: 0}
    for _ in range(REPETITIONS):
        episodes = generator.lognormal(0, 1, 100) - np.exp(0.5)
        values = episodes + scale * generator.normal(size=(5, 1)) + 0.3 * generator.normal(size=(5, 100))
        for comparisons in found:
            drawn = interval(values, corrected(comparisons), unseen=True)
            found[comparisons] += drawn.low > 0 or drawn.high < 0
    for comparisons, count in found.items():
        assert count <= bound(0.05 / comparisons), f"{count} of {REPETITIONS} at {comparisons} comparisons"

"""Where settings are searched, and the search itself: a seeded tree-structured Parzen estimator."""

from collections.abc import Mapping

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from baselines.tunable import Range

optuna.logging.set_verbosity(optuna.logging.WARNING)

DIGITS = 4  # of a number, so that a file holds exactly what was played


SPACE: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(3e-4, 1e-2, log=True),
    "initial_std": FloatDistribution(0.1, 2.0, log=True),
    "batch_size": CategoricalDistribution((1024, 2048, 4096)),
    "epochs": IntDistribution(2, 8),
    "rollout_steps": CategoricalDistribution((32, 64, 128)),
    "gamma": CategoricalDistribution((0.95, 0.98, 0.99, 0.995, 0.999)),
    "gae_lambda": CategoricalDistribution((0.9, 0.95, 0.98, 1.0)),
    "width": CategoricalDistribution((16, 32, 64)),
}
"""Of the settings of PPO. Every batch divides what 128 environments gather in the fewest steps. `width` is
that of both hidden layers: with 64 units an exported allocator is still a file of less than 60 KB."""


def distributions(ranges: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    """The ranges of a policy's constants as Optuna knows them."""
    return {
        name: IntDistribution(int(each.low), int(each.high), log=each.log)
        if each.whole
        else FloatDistribution(each.low, each.high, log=each.log)
        for name, each in ranges.items()
    }


def rounded(proposed: Mapping[str, float | int]) -> dict[str, float | int]:
    """What the search proposes as the file will say it."""
    return {
        name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for name, value in proposed.items()
    }


def make_study(seed: int) -> optuna.Study:
    """An empty study that minimises; the same seed leads to the same proposals.

    A trial is given up where it is worse than the median of the others after as many validations,
    the first one excepted. One that is proposed while others are being played keeps away from them.
    """
    return optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed % 2**32, multivariate=True, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
    )

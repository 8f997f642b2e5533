"""Where settings are searched, and the search itself: a seeded tree-structured Parzen estimator."""

from collections.abc import Mapping
from typing import NamedTuple

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


class Choices(NamedTuple):
    """The only values that are tried."""

    values: tuple[float | int, ...]


SPACE: dict[str, Range | Choices] = {
    "learning_rate": Range(3e-4, 1e-2, log=True, whole=False),
    "initial_std": Range(0.1, 2.0, log=True, whole=False),
    "batch_size": Choices((1024, 2048, 4096)),
    "epochs": Range(2, 8, log=False, whole=True),
    "rollout_steps": Choices((32, 64, 128)),
    "gamma": Choices((0.95, 0.98, 0.99, 0.995, 0.999)),
    "gae_lambda": Choices((0.9, 0.95, 0.98, 1.0)),
    "width": Choices((16, 32, 64)),
}
"""Of the settings of PPO. Every batch divides what 128 environments gather in the fewest steps. `width` is
that of both hidden layers: with 64 units an exported allocator is still a file of less than 60 KB."""


def distributions(space: Mapping[str, Range | Choices]) -> dict[str, BaseDistribution]:
    """The space as Optuna knows it."""

    def distribution(searched: Range | Choices) -> BaseDistribution:
        if isinstance(searched, Choices):
            return CategoricalDistribution(searched.values)
        if searched.whole:
            return IntDistribution(int(searched.low), int(searched.high), log=searched.log)
        return FloatDistribution(searched.low, searched.high, log=searched.log)

    return {name: distribution(searched) for name, searched in space.items()}


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

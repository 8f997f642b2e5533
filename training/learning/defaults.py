"""What PPO is trained with where nothing else is asked for, as `python -m training.study` has found it."""

from pathlib import Path
from typing import Any

from baselines.tuned import read_tuned
from training.learning.allocators.kinds import kind_of

DEFAULTS = Path(__file__).with_name("defaults.toml")
USUAL = ("serverless", "cluster-small")
"""The scenarios whose settings are the defaults of those that have no table of their own."""


def default_settings(allocator: str, scenario: str) -> dict[str, Any]:
    """The settings of a kind of allocator on a scenario, by the names of the options of `training.train`.

    Args:
        allocator: the name of its kind.
        scenario: the `key` of the scenario, the name of a registered one.

    Raises:
        ValueError: unknown allocator.
    """
    name = kind_of(allocator).table
    tables: dict[str, dict[str, Any]] = {**read_tuned(DEFAULTS)}
    table = next(tables[key][name] for key in (scenario, *USUAL) if name in tables.get(key, {}))
    return {**table, "hidden": tuple(table["hidden"])}

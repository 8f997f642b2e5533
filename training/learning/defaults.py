"""What PPO is trained with where nothing else is asked for, as `python -m training.study` has found it."""

from pathlib import Path
from typing import Any, Literal

from baselines.tuned import read_tuned

DEFAULTS = Path(__file__).with_name("defaults.toml")
USUAL = "serverless"
"""The scenario whose settings are the defaults of those that have no table of their own."""
AllocatorKind = Literal["ppo", "ppo-shared", "ppo-residual"]


def default_settings(allocator: AllocatorKind, scenario: str) -> dict[str, Any]:
    """The settings of an allocator on a scenario, by the names of the command line of `training.train`.

    Args:
        allocator: its kind.
        scenario: the `key` of the scenario, the name of a registered one.
    """
    tables: dict[str, dict[str, Any]] = {**read_tuned(DEFAULTS)}
    table = tables.get(scenario, {}).get(allocator) or tables[USUAL][allocator]
    return {**table, "hidden": tuple(table["hidden"])}

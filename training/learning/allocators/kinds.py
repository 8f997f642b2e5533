"""The kinds of learned allocators: everything that tells one from another, in one place.

To add one, register a `Kind` and give its settings a table in `defaults.toml`; its network and its
actions are those of `NETWORKS` and `gpualloc_env.allocator.actions.ACTIONS`, or are added there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

from gpualloc_env.action_transform import hysteresis, simplex
from gpualloc_env.scenario.scenario import Scenario
from training.learning.allocators.action_transform import (
    Transform,
    assumptions,
    corrections,
    placed_corrections,
    priced_assumptions,
)
from training.learning.allocators.trained_network import NETWORKS


@dataclass(frozen=True)
class Kind:
    """A kind of learned allocator: what PPO trains, and what its actions mean."""

    name: str
    """As `--allocator` takes it."""
    help: str
    """What it is, as `--help` says it."""
    network: str
    """A key of `NETWORKS`, which says how its weights are exported."""
    transform: Callable[[Scenario], Transform]
    """From the scenario to what makes shares of its actions."""
    initial_gain: float
    """Of the actor's last layer; with 0 its most likely actions are zero at first."""
    table: str
    """Name of its tables in `defaults.toml`: its own, or that of another kind whose settings it takes."""
    linear: bool = False
    """Whether its network has no hidden layers."""

    @property
    def of_clusters(self) -> bool:
        """Whether it decides for clusters rather than for one pool of GPUs."""
        return self.network == "exchangeable"

    @property
    def studied(self) -> bool:
        """Whether `training.study` searches its settings."""
        return not (self.of_clusters or self.linear)


_OURS = (
    Kind(
        "ppo",
        "a multilayer perceptron over the whole observation, actions on the simplex",
        network="mlp",
        transform=lambda scenario: simplex(len(scenario.agents)),
        initial_gain=0.01,
        table="ppo",
    ),
    Kind(
        "ppo-shared",
        "one network for every agent, so that it serves any number of them; its shares follow those on the "
        "simplex with hysteresis",
        network="shared",
        transform=lambda scenario: hysteresis(len(scenario.agents)),
        initial_gain=0.01,
        table="ppo-shared",
    ),
    Kind(
        "ppo-residual",
        "one network for every agent, and its actions correct what receding-horizon control assumes, from "
        "whose decisions it starts",
        network="shared",
        transform=corrections,
        initial_gain=0.0,
        table="ppo-residual",
    ),
    Kind(
        "ppo-mpc",
        "one network for every agent, and its actions are all that receding-horizon control assumes, its "
        "constants too, which are the same for all scenarios at first",
        network="shared",
        transform=assumptions,
        initial_gain=0.0,
        table="ppo-residual",
    ),
    Kind(
        "ppo-mpc-priced",
        "the same, and how these depend on what the bill weighs in the objective, which it can be told",
        network="shared",
        transform=priced_assumptions,
        initial_gain=0.0,
        table="ppo-residual",
    ),
    Kind(
        "linear-residual",
        "the same corrections, of `receding-horizon-batch` where it was tuned, linear in what is seen of the "
        "agent; for evolution (`--generations`)",
        network="shared",
        transform=partial(corrections, controllers=("receding-horizon-batch", "receding-horizon")),
        initial_gain=0.0,
        table="linear-residual",
        linear=True,
    ),
    Kind(
        "ppo-cluster",
        "for clusters: one network over all instances, and its actions correct where the baseline `demand` "
        "places agents and what receding-horizon control assumes on each GPU, in every step",
        network="exchangeable",
        transform=partial(placed_corrections, period_s=1e-9),
        initial_gain=0.0,
        table="ppo-cluster",
    ),
    Kind(
        "ppo-cluster-hierarchical",
        "the same every 5 s, which count as one of its steps; below, each GPU is split in every step",
        network="exchangeable",
        transform=partial(placed_corrections, period_s=5.0),
        initial_gain=0.0,
        table="ppo-cluster",
    ),
    Kind(
        "linear-cluster",
        "the corrections of `ppo-cluster`, linear in what is seen of the instance; for evolution "
        "(`--generations`)",
        network="exchangeable",
        transform=partial(placed_corrections, period_s=1e-9),
        initial_gain=0.0,
        table="linear-cluster",
        linear=True,
    ),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _OURS}
"""Every kind by its name."""


def register(kind: Kind) -> None:
    """Add a kind, before the command line is read.

    Raises:
        ValueError: its name is taken, or there is no such network or table of settings.
    """
    if kind.name in KINDS:
        raise ValueError(f"there is an allocator {kind.name!r} already; give another name")
    if kind.network not in NETWORKS:
        raise ValueError(f"unknown network {kind.network!r}; give one of {', '.join(NETWORKS)}")
    tables = dict.fromkeys(known.table for known in KINDS.values())
    if kind.table not in tables:
        raise ValueError(
            f"allocator {kind.name!r}: no settings of {kind.table!r}; give as table one of "
            f"{', '.join(tables)}"
        )
    KINDS[kind.name] = kind


def kind_of(name: str) -> Kind:
    """The kind of a name.

    Raises:
        ValueError: there is none of that name.
    """
    if name in KINDS:
        return KINDS[name]
    close = get_close_matches(name, KINDS, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"give one of {', '.join(KINDS)}"
    raise ValueError(f"unknown allocator {name!r}; {hint}")


def rows_of(scenario: Scenario) -> int:
    """Rows of the observation: N agents, in a cluster N K instances."""
    return len(scenario.agents) * max(1, scenario.num_gpus)


def help_text() -> str:
    """All kinds as `--help` lists them."""
    return " ".join(f"`{kind.name}`: {kind.help}." for kind in KINDS.values())

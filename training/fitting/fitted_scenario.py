"""The scenario of a fitted traffic law, and its TOML file."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import tomlkit

from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.scenario.traffic import Traffic
from gpualloc_env.traces.log import ASSIGNMENTS, Log
from training.files.atomic import write_atomically

Routing = tuple[tuple[float, ...], ...]


def fitted_scenario(name: str, base: Scenario, log: Log, traffic: Traffic) -> Scenario:
    """The base scenario's agents, platform and objective under the fitted traffic.

    A log that names no agents is one stream. All its requests arrive at the first agent,
    so that the traffic from outside is exactly the log's, and unless the base scenario has a
    routing of its own, each goes on to one specialist, as in a replay of the log: by prompt length,
    in the proportions of the work that the log has for each. An episode is long enough to hold a
    whole cycle.
    """
    steps = base.steps
    if traffic.cycle is not None:
        steps = max(steps, ceil(traffic.cycle.period_s / base.dt))
    routing = base.routing
    if routing is None and log.agent is None and len(base.agents) > 1:
        routing = specialist_routing(log, len(base.agents))
    changes = {
        "name": name,
        "description": f"Traffic fitted to {log.path.name}; agents and platform of {base.name}.",
        "traffic": traffic,
        "trace": None,
        "routing": routing,
        "steps": steps,
    }
    return Scenario.model_validate({**base.model_dump(), **changes})


def specialist_routing(log: Log, agents: int) -> Routing:
    """W in which the first agent hands each request to one specialist, by their parts of the log's work."""
    visits = ASSIGNMENTS["coordinator-and-specialist"](log, agents)
    work = np.bincount(visits[:, 1], weights=log.work, minlength=agents)
    parts = np.floor(1e6 * work / work.sum()) / 1e6
    nothing = (0.0,) * agents
    return (tuple(parts.tolist()), *(nothing for _ in range(agents - 1)))


def check_out(out: Path) -> None:
    """Refuse a path at which no new scenario can be written.

    Raises:
        ValueError: it is no .toml file.
        OSError: it exists, or its folder does not.
    """
    if out.suffix != ".toml":
        raise ValueError(f"--out {out} is not a .toml file; name it like my-scenario.toml")
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"--out {out} exists; give another name, or remove it first")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: there is no folder {out.parent}; make it first")


def write_scenario(out: Path, scenario: Scenario, comment: Sequence[str]) -> None:
    """Write a scenario, with a comment above it, all at once or not at all.

    Raises:
        OSError: the file exists by now, or cannot be written.
    """
    data = _without_none(scenario.model_dump(exclude={"name", "trace"}))
    lines = [line for paragraph in comment for line in paragraph.splitlines() or [""]]
    text = "".join(f"# {_printable(line)}".rstrip() + "\n" for line in lines) + "\n" + tomlkit.dumps(data)
    check_out(out)
    try:
        write_atomically(out, text.encode())
    except OSError as error:
        raise OSError(f"cannot write --out {out}: {error.strerror}") from None


def _without_none(value: Any) -> Any:
    """The same tables without the keys that TOML has no value for."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, tuple | list):
        return [_without_none(item) for item in value]
    return value


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in line)

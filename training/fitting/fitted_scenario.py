"""The scenario of a fitted traffic law, and its TOML file."""

from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path

import numpy as np
import tomlkit

from gpualloc_env.scenario.agents import Agent
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.scenario.traffic import Traffic
from gpualloc_env.traces.log import ASSIGNMENTS, Log, TraceError, assign
from training.files.atomic import write_atomically

Routing = tuple[tuple[float, ...], ...]


def fitted_scenario(name: str, base: Scenario, log: Log, traffic: Traffic) -> Scenario:
    """The base scenario's agents, platform and objective under the fitted traffic.

    A log that names no agents is one stream. All its requests arrive at the first agent,
    so that the traffic from outside is exactly the log's, and unless the base scenario has a
    routing of its own, each goes on to one specialist, as in a replay of the log: by prompt length,
    in the proportions of the work that the log has for each. Where agents serve calls, a request is one
    call, of an agent by its prompt's length where none is named, and an agent's tokens are those of the
    log. An episode is long enough to hold a whole cycle.

    Raises:
        TraceError: agents serve calls and the log has no tokens.
    """
    steps = base.steps
    if traffic.cycle is not None:
        steps = max(steps, ceil(traffic.cycle.period_s / base.dt))
    routing = base.routing
    agents = base.agents
    if base.service == "requests":
        agents = tuple(agents_of_calls(base, log))
    elif routing is None and log.agent is None and len(base.agents) > 1:
        routing = specialist_routing(log, len(base.agents))
    changes = {
        "name": name,
        "description": f"Traffic fitted to {log.path.name}; agents and platform of {base.name}.",
        "agents": agents,
        "traffic": traffic,
        "trace": None,
        "tasks": None,
        "sessions": None,
        "routing": routing,
        "steps": steps,
    }
    return Scenario.model_validate({**base.model_dump(), **changes})


def agents_of_calls(base: Scenario, log: Log) -> Iterator[Agent]:
    """The agents with the means and coefficients of variation of the tokens that the log has for each."""
    if log.prompt_tokens is None or log.output_tokens is None:
        raise TraceError(
            f"{log.path} has no tokens, and agents that serve calls need them; give a log of a format with "
            "prompt and output tokens, or --scenario a fluid"
        )
    owner = assign(log, "by-length", base.agent_names)[:, 0]
    for i, agent in enumerate(base.agents):
        table = agent.model_dump()
        for what, tokens in (("prompt", log.prompt_tokens), ("output", np.maximum(log.output_tokens, 1))):
            own = tokens[owner == i]
            if len(own) and own.any():
                table |= {f"{what}_tokens": float(own.mean()), f"{what}_cv": float(own.std() / own.mean())}
        del table["throughput_rps"]
        if agent.model is not None:
            # What a call adds to an iteration depends on its mean tokens.
            del table["iteration_s_per_call"]
        yield Agent.model_validate(table)


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
    data = scenario.model_dump(mode="json", exclude_none=True, exclude={"name"})
    lines = [line for paragraph in comment for line in paragraph.splitlines() or [""]]
    text = "".join(f"# {_printable(line)}".rstrip() + "\n" for line in lines) + "\n" + tomlkit.dumps(data)
    check_out(out)
    try:
        write_atomically(out, text.encode())
    except OSError as error:
        raise OSError(f"cannot write --out {out}: {error.strerror}") from None


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in line)

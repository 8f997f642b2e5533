"""Scenarios by name or from a TOML file, with changes, and errors that say what to do."""

import difflib
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gpualloc_env.scenario.agents import Agent
from gpualloc_env.scenario.objective import Objective
from gpualloc_env.scenario.platform import Platform
from gpualloc_env.scenario.registry import SCENARIOS
from gpualloc_env.scenario.scenario import Scenario, ScenarioError
from gpualloc_env.scenario.trace import Trace
from gpualloc_env.scenario.traffic import Burst, Cycle, Surge, Traffic
from gpualloc_env.traces.log import Split

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load_scenario(
    scenario: str | Path = "serverless",
    *,
    steps: int | None = None,
    dt: float | None = None,
    load: float | None = None,
    agents: int | None = None,
    trace: str | Path | None = None,
    split: Split | None = None,
    objective: dict[str, float] | None = None,
) -> Scenario:
    """Return a registered scenario or one read from a TOML file, with the given changes.

    Args:
        scenario: a name in `SCENARIOS` or the path of a `.toml` file.
        steps: steps of an episode.
        dt: length of a step [s], 0.01 to 10; the law of the traffic stays the same.
        load: ρ in (0, 10] to which the traffic is rescaled; 1.0 is the platform's full capacity.
        agents: how many: the scenario's own, in turn as often as it takes, on GPUs in proportion.
        trace: a request log that replaces the scenario's traffic.
        split: windows of the log to play: `train`, `eval` or `all`.
        objective: weights that replace the scenario's, by the name of their term.

    Raises:
        ScenarioError: unknown name, or a value that no scenario can have.
        TraceError: a log that cannot be used.
    """
    if str(scenario).endswith(".toml"):
        base, place = _read_toml(Path(scenario)), str(scenario)
    elif scenario in SCENARIOS:
        base, place = SCENARIOS[str(scenario)], f"scenario {scenario!r}"
    else:
        close = difflib.get_close_matches(str(scenario), SCENARIOS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ScenarioError(
            f"unknown scenario {str(scenario)!r}; {hint}"
            f"Give one of {', '.join(SCENARIOS)}, or the path of a .toml file"
        )
    if load is not None and not 0 < load <= 10:
        raise ScenarioError(f"load must be in (0, 10], got {load}; 1.0 is the platform's full capacity")
    data = base.model_dump()
    if agents is not None:
        _resize(data, agents, place)
    if trace is not None:
        data["traffic"], data["trace"] = None, {**(data["trace"] or {}), "path": trace}
    if split is not None and data["trace"] is None:
        raise ScenarioError(f"{place} draws its traffic, so split={split!r} has no meaning; give a trace too")
    changes: dict[str, dict[str, Any]] = {
        "": {"steps": steps, "dt": dt},
        "traffic" if data["trace"] is None else "trace": {"load": load},
        "objective": dict(objective or {}),
    }
    if split is not None:
        changes["trace"]["split"] = split
    for table, values in changes.items():
        target = data[table] if table else data
        target.update({key: value for key, value in values.items() if value is not None})
    return _validated(data, place)


def _resize(data: dict[str, Any], count: int, place: str) -> None:
    """Give a scenario's data so many agents, each with its own rate, and GPUs in proportion."""
    if count < 1:
        raise ScenarioError(f"agents must be at least 1, got {count}")
    own, traffic = data["agents"], data["traffic"]
    if traffic is None or traffic["surges"] or data["routing"] is not None:
        raise ScenarioError(
            f"{place} has a log, surges or routing for its {len(own)} agents, so agents = {count} has no "
            "meaning; write a scenario of its own as a .toml file"
        )
    rounds = [divmod(k, len(own)) for k in range(count)]
    data["agents"] = [
        {**own[i], "name": f"{own[i]['name']}-{lap + 1}" if lap else own[i]["name"]} for lap, i in rounds
    ]
    data["platform"]["gpus"] *= count / len(own)
    if traffic["rates_rps"] is not None:
        traffic["rates_rps"] = [traffic["rates_rps"][i] for _, i in rounds]


def _read_toml(path: Path) -> Scenario:
    if not path.is_file():
        raise ScenarioError(f"{path}: no such file; registered scenarios are {', '.join(SCENARIOS)}")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: not valid TOML: {error}") from None
    log = data.get("trace", {}).get("path") if isinstance(data.get("trace"), dict) else None
    if isinstance(log, str):
        data["trace"]["path"] = path.parent / log
    return _validated({"name": path.stem, **data}, str(path))


def _validated(data: dict[str, Any], place: str) -> Scenario:
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        problems = [_explain(dict(problem)) for problem in error.errors()]
        raise ScenarioError("\n".join(f"{place}: {problem}" for problem in problems)) from None


def _explain(problem: dict[str, Any]) -> str:
    """One sentence for one validation problem: the key, the value and what to do."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key {key!r}; {hint}Known keys here: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"key {key!r} is missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key} = {problem['input']!r}: {message[0].lower()}{message[1:]}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Keys that the table at a location of a scenario may have."""
    model: type[BaseModel] = Scenario
    tables: dict[str, type[BaseModel]] = {
        "agents": Agent,
        "platform": Platform,
        "objective": Objective,
        "traffic": Traffic,
        "trace": Trace,
        "burst": Burst,
        "cycle": Cycle,
        "surges": Surge,
    }
    for part in location:
        model = tables.get(str(part), model)
    return list(model.model_fields)

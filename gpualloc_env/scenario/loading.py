"""Scenarios by name or from a TOML file, with changes, and errors that say what to do."""

import difflib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from gpualloc_env.listing import shortened
from gpualloc_env.scenario.clusters import CLUSTERS
from gpualloc_env.scenario.overrides import NAMES, Overrides
from gpualloc_env.scenario.registry import SCENARIOS
from gpualloc_env.scenario.scenario import Scenario, ScenarioError, UnexpectedArgument
from gpualloc_env.traces.log import Split, TimeUnit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REMEDIES = {
    "load": "; 1.0 is the platform's full capacity",
    "objective": "; give weights by the name of their term, as {'latency': 1.0}",
    "frictions": "; give settings by name, as {'keep_alive_s': 60.0}",
    "trace": "; give the path of a request log",
}
"""What else to say of a value that is out of range, by its key."""


def load_scenario(
    scenario: str | Path | Scenario = "serverless", overrides: Overrides | None = None, **changes: Any
) -> Scenario:
    """Return a scenario with the given changes.

    Args:
        scenario: a name in `SCENARIOS` or `CLUSTERS`, the path of a `.toml` file, or a scenario itself.
        overrides: the changes.
        changes: the same by name, `steps=100`, `load=1.2` and so on: the fields of `Overrides`. They
            come before those of `overrides`.

    Raises:
        ScenarioError: unknown name, or a value that no scenario can have.
        TraceError: a log that cannot be used.
        UnexpectedArgument: a change that no scenario knows; it is a TypeError too.
    """
    base, place = _found(scenario)
    asked = {**(overrides.changes if overrides is not None else {}), **_given(changes)}
    asked = _overrides(asked, place).changes
    return _changed(base, place, **asked).with_key_of(base) if asked else base


def _found(scenario: object) -> tuple[Scenario, str]:
    """The scenario that is meant, and how messages call it."""
    if isinstance(scenario, Scenario):
        return scenario, f"scenario {scenario.name!r}"
    if not isinstance(scenario, str | Path):
        raise ScenarioError(
            f"a scenario is a name, the path of a .toml file or a Scenario, got {scenario!r}; "
            f"names are {', '.join(_names())}"
        )
    name = str(scenario)
    if name.endswith(".toml"):
        read = _read_toml(Path(name))
        return read.with_key_of(read), name
    for registered in (SCENARIOS, CLUSTERS):
        if name in registered:
            return registered[name], f"scenario {name!r}"
    raise ScenarioError(
        f"unknown scenario {name!r}; {_hint(name, _names())}"
        f"Give one of {', '.join(_names())}, or the path of a .toml file"
    )


def _names() -> list[str]:
    return [*SCENARIOS, *CLUSTERS]


def _given(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if value is not None}


def _overrides(changes: dict[str, Any], place: str) -> Overrides:
    """The changes to a scenario, validated."""
    for name in changes:
        if name not in NAMES:
            raise UnexpectedArgument(
                f"{place} got an unexpected keyword argument {name!r}; {_hint(name, NAMES)}What can be "
                f"changed is {', '.join(NAMES)}"
            )
    try:
        return Overrides(**changes)
    except ValidationError as error:
        raise _refusal(error, place) from None


def _changed(
    base: Scenario,
    place: str,
    *,
    agents: int | None = None,
    trace: Path | None = None,
    split: Split | None = None,
    time_unit: TimeUnit | None = None,
    load: float | None = None,
    objective: dict[str, float] | None = None,
    frictions: dict[str, float] | None = None,
    **numbers: float,
) -> Scenario:
    """A scenario with changes that are sound in themselves."""
    data: dict[str, Any] = {**base.model_dump(), **numbers}
    if agents is not None:
        _resize(data, agents, place)
    if trace is not None and data["sessions"] is not None:
        data["sessions"]["path"] = trace
    elif trace is not None:
        data["traffic"], data["tasks"] = None, None
        data["trace"] = {**(data["trace"] or {}), "path": trace}
    for name, value in (("split", split), ("time_unit", time_unit)):
        if value is not None:
            if data["sessions"] is not None:
                raise ScenarioError(
                    f"{place} draws sessions from a log as a whole, so {name}={value!r} has no meaning; "
                    "leave it out"
                )
            if data["trace"] is None:
                raise ScenarioError(
                    f"{place} draws its traffic, so {name}={value!r} has no meaning; give a trace too"
                )
            data["trace"][name] = value
    if load is not None:
        table = next(name for name in ("traffic", "trace", "sessions") if data[name] is not None)
        data[table]["load"] = load
        if table == "trace":
            data["trace"]["own_times"] = False
    data["objective"].update(objective or {})
    data["platform"].update(frictions or {})
    return validated(data, place)


def _resize(data: dict[str, Any], count: int, place: str) -> None:
    """Give a scenario's data so many agents, each with its own rate, and GPUs in proportion."""
    own, traffic = data["agents"], data["traffic"]
    if count == len(own):
        return
    bound = data["routing"] is not None or data["tasks"] is not None
    if data["nodes"]:
        raise ScenarioError(
            f"{place} has nodes for its {len(own)} agents, so agents = {count} has no meaning; write a "
            "scenario of its own as a .toml file"
        )
    if traffic is None or traffic["surges"] or bound:
        raise ScenarioError(
            f"{place} has a log, surges, routing or tasks for its {len(own)} agents, so agents = {count} has "
            "no meaning; write a scenario of its own as a .toml file"
        )
    order = [k % len(own) for k in range(count)]
    names = _distinct([own[i]["name"] for i in order])
    data["agents"] = [{**own[i], "name": name} for i, name in zip(order, names, strict=True)]
    data["platform"]["gpus"] *= count / len(own)
    if traffic["rates_rps"] is not None:
        traffic["rates_rps"] = [traffic["rates_rps"][i] for i in order]


def _distinct(names: list[str]) -> list[str]:
    """Names that are repeated with the next number that makes no other name: nlp, nlp-2, nlp-3."""
    taken, number, made = set(names), dict.fromkeys(names, 1), list[str]()
    for name in names:
        distinct = name
        while number[name] > 1 and distinct in taken:
            distinct = f"{name}-{number[name]}"
            number[name] += 1
        number[name] = max(2, number[name])
        taken.add(distinct)
        made.append(distinct)
    return made


def _read_toml(path: Path) -> Scenario:
    if not path.is_file():
        raise ScenarioError(f"{path}: no such file; registered scenarios are {', '.join(_names())}")
    try:
        # Some editors begin a file with a mark of its byte order.
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None
    for name in ("trace", "sessions"):
        log = data.get(name, {}).get("path") if isinstance(data.get(name), dict) else None
        if isinstance(log, str):
            data[name]["path"] = path.parent / log
    return validated({"name": path.stem, **data}, str(path))


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def validated(data: dict[str, Any], place: str) -> Scenario:
    """A scenario of nested tables, as TOML has them.

    Args:
        data: the tables.
        place: where they stand, for messages.

    Raises:
        ScenarioError: all that is wrong with them, a line each.
    """
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        raise _refusal(error, place) from None


def _refusal(error: ValidationError, place: str) -> ScenarioError:
    """All that is wrong, a line each."""
    problems = error.errors()
    within = {problem["loc"][:depth] for problem in problems for depth in range(len(problem["loc"]))}
    # Elements that are refused make their list too short.
    told = [each for each in problems if each["type"] != "too_short" or each["loc"] not in within]
    return ScenarioError("\n".join(f"{place}: {_explain(dict(problem))}" for problem in told))


def _explain(problem: dict[str, Any]) -> str:
    """One sentence for one validation problem: the key, the value and what to do."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1])
        hint = _hint(str(problem["loc"][-1]), known)
        return f"unknown key {key!r}; {hint}Known keys here: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"key {key!r} is missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else message
    remedy = REMEDIES.get(str(problem["loc"][-1]), "")
    return f"{key} = {shortened(repr(problem['input']))}: {message[0].lower()}{message[1:]}{remedy}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Keys that the table at a location of a scenario may have."""
    model: type[BaseModel] = Scenario
    for part in location:
        if isinstance(part, str):
            model = next(_models(model.model_fields[part].annotation))
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The tables of an annotation, such as those of `tuple[Agent, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)

"""Constants of a policy that may be tuned: each field declares the range that is searched."""

from collections.abc import Mapping
from dataclasses import Field, field, fields, is_dataclass, replace
from math import inf
from operator import attrgetter
from typing import Any, NamedTuple

RANGE = "range"


class Range(NamedTuple):
    """Where a constant is searched; whole numbers where its default is one."""

    low: float
    high: float
    log: bool
    whole: bool


def tunable(default: Any, low: float, high: float, *, log: bool = False) -> Any:
    """A field of a frozen dataclass with a default and the range in which it is searched.

    Args:
        default: used where a scenario has no tuned value; a whole one keeps the search to whole numbers.
        low: least value.
        high: greatest value.
        log: search evenly in the logarithm.
    """
    return field(default=default, metadata={RANGE: Range(low, high, log, isinstance(default, int))})


def ranges(policy: object) -> dict[str, Range]:
    """The ranges of a policy's constants by name, of those of a policy below it as `lower.horizon_s`.

    None for a plain function, and none of an infinite constant.
    """
    declared: tuple[Field[Any], ...] = fields(policy) if is_dataclass(policy) else ()
    found: dict[str, Range] = {}
    for each in declared:
        value = getattr(policy, each.name)
        if RANGE not in each.metadata:
            found |= {f"{each.name}.{name}": below for name, below in ranges(value).items()}
        elif value != inf:
            found[each.name] = each.metadata[RANGE]
    return found


def constants_of(policy: object) -> dict[str, Any]:
    """The values of all constants that have `ranges`, by the same names."""
    return {name: attrgetter(name)(policy) for name in ranges(policy)}


def with_constants(policy: Any, constants: Mapping[str, Any]) -> Any:
    """A policy that is a dataclass, with other constants.

    Args:
        policy: the policy.
        constants: by their names in `ranges`, or by those of other fields.

    Raises:
        TypeError: it has no such constants.
    """
    own: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for name, value in constants.items():
        part, dot, rest = name.partition(".")
        if dot:
            below.setdefault(part, {})[rest] = value
        else:
            own[part] = value
    parts = {part: with_constants(getattr(policy, part), each) for part, each in below.items()}
    return replace(policy, **own, **parts)

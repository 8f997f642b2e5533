"""Constants of a policy that may be tuned: each field declares the range that is searched."""

from dataclasses import Field, field, fields, is_dataclass
from math import inf
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
    """The ranges of a policy's constants by name; none for a plain function, and none of an infinite one."""
    declared: tuple[Field[Any], ...] = fields(policy) if is_dataclass(policy) else ()
    return {
        each.name: each.metadata[RANGE]
        for each in declared
        if RANGE in each.metadata and getattr(policy, each.name) != inf
    }

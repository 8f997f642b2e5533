"""Limits of the numbers that commands take: declared beside each option, shown in its help, checked once.

episodes: Annotated[int, Limits(1)] = 100
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from math import inf
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import tyro


@dataclass(frozen=True)
class Limits:
    """Where a number must lie: from `low` to `high`, both included unless they are said to be open."""

    low: float
    high: float = inf
    open_low: bool = False
    open_high: bool = False

    def __str__(self) -> str:
        least = f"{'above' if self.open_low else 'at least'} {self.low:g}"
        if self.high == inf:
            return least
        return f"{least}, {'below' if self.open_high else 'at most'} {_number(self.high)}"

    def check(self, name: str, value: float) -> None:
        """Refuse a number that is not within the limits.

        Raises:
            ValueError: it says by how much.
        """
        if not (value > self.low if self.open_low else value >= self.low):
            raise ValueError(
                f"{name} must be {'above' if self.open_low else 'at least'} {self.low:g}, got {value}"
            )
        if not (value < self.high if self.open_high else value <= self.high):
            raise ValueError(
                f"{name} must be {'below' if self.open_high else 'at most'} {_number(self.high)}, got {value}"
            )


def _number(value: float) -> str:
    """Whole numbers in full; as powers of two where they are that long."""
    if value >= 2**31 and value == 2 ** (int(value).bit_length() - 1):
        return f"2**{int(value).bit_length() - 1}"
    return f"{value:.0f}" if value == int(value) else f"{value:g}"


def check_limits(config: Any) -> None:
    """Refuse a configuration in which a number is outside its limits.

    Raises:
        ValueError: it names the option, its limit and the value.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            check_limits(value)
        elif value is not None:
            for each in value if isinstance(value, tuple | list) else (value,):
                for limits in _limits(hints[field.name]):
                    limits.check(field.name, each)


def _limits(hint: Any) -> Iterable[Limits]:
    """Every limit in an annotation, whether of the value itself or of the items of a tuple."""
    if get_origin(hint) is Annotated:
        yield from (extra for extra in hint.__metadata__ if isinstance(extra, Limits))
        yield from _limits(hint.__origin__)
    elif get_origin(hint) in (Union, UnionType, tuple):
        for part in get_args(hint):
            yield from _limits(part)


def with_limits_in_help(config: type) -> type:
    """The same class, so annotated that the help of each option says its limits."""
    hints = get_type_hints(config, include_extras=True)
    for field in fields(config):
        limits = list(_limits(hints[field.name]))
        if limits:
            text = "; ".join(map(str, limits))
            shown = tyro.conf.arg(
                help_behavior_hint=lambda default, text=text: f"({text}; default: {default})"
            )
            config.__annotations__[field.name] = Annotated[hints[field.name], shown]
    return config

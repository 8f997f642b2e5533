"""What every command does alike: how it ends where it cannot go on, and how it is written down."""

import sys
from collections.abc import Mapping
from typing import Any, NoReturn


def fail(error: Exception) -> NoReturn:
    """End with the message that names the mistake and its remedy."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def options(given: Mapping[str, Any]) -> list[str]:
    """The words of a command line that asks for some values, by the names of its configuration.

    The scenario comes first, then what is changed about it.
    """
    words: list[str] = []
    for name, value in sorted(given.items(), key=lambda item: item[0] != "scenario"):
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, Mapping):
            words += [f"--{option}", *(str(word) for item in value.items() for word in item)]
        elif isinstance(value, list | tuple):
            words += [f"--{option}", *map(str, value)]
        elif value is not None:
            words += [f"--{option}", str(value)]
    return words

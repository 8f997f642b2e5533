"""Text that commands write into pages: tables between two marks, and numbers before one.

A table stands between `<!-- name -->` and `<!-- end of name -->`. A number that comes from the results is
followed by where it comes from, `1.242<!-- =leaderboard:serverless/receding-horizon/objective -->`: the file
`leaderboard.json`, and the keys that lead to it. It keeps its decimals; before ` %` fractions are per cent,
and `=-` turns the sign.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NUMBER = re.compile(
    r"(?P<text>[−-]?\d[\d,]*(?:\.\d+)?)(?P<percent> %)?"
    r"<!-- =(?P<turn>-?)(?P<file>[\w-]+):(?P<keys>.+?) -->"
)
WRAPPERS = ("scenarios", "policies", "metrics", "per_agent")
"""Levels of the files that the keys leave out."""


def filled(text: str, tables: Mapping[str, str]) -> str:
    """A page with the tables between their marks; those that it has no marks for are left out."""
    for name, table in tables.items():
        mark = re.escape(name)
        between = re.compile(rf"(<!-- {mark} -->)(\n+)(?:\S.*?\S)?(\n*)(<!-- end of {mark} -->)", re.DOTALL)
        text = between.sub(
            lambda found: found[1] + found[2] + table.strip() + (found[3] or found[2]) + found[4],  # noqa: B023
            text,
        )
    return text


def numbered(text: str, results: Path, page: str = "") -> str:
    """A page with the numbers that the results have.

    Args:
        text: of the page.
        results: directory of the JSON files.
        page: its name, for errors.

    Raises:
        ValueError: a number whose file or keys do not exist.
    """

    def number(found: re.Match[str]) -> str:
        path, keys = results / f"{found['file']}.json", found["keys"].split("/")
        try:
            value = resolve(json.loads(path.read_text(encoding="utf-8")), keys)
        except (OSError, LookupError, StopIteration) as error:
            raise ValueError(f"{page}: no number {found['file']}:{found['keys']} ({error})") from None
        value *= (100 if found["percent"] else 1) * (-1 if found["turn"] else 1)
        decimals = len(found["text"].partition(".")[2])
        written = f"{value:,.{decimals}f}".replace("-", "−")
        return written + found[0].removeprefix(found["text"])

    return NUMBER.sub(number, text)


def resolve(data: Any, keys: list[str]) -> float:
    """The number to which keys lead, the mean where there is an interval."""
    for key in keys:
        if isinstance(data, list):
            data = data[int(key)]
            continue
        if key not in data:
            data = next(data[each] for each in WRAPPERS if each in data and key in data[each])
        data = data[key]
    return float(data["mean"] if isinstance(data, dict) else data)

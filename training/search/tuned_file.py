"""The file of tuned constants: one table for each scenario and policy, under the command that found it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from baselines.tuned import read_tuned
from training.files.atomic import write_atomically

_TABLE = re.compile(
    r"^(?P<remark>#[^\n]*\n)\[(?P<scenario>[^\n]+)\.(?P<policy>[\w-]+)\]\n(?P<body>(?:\w[^\n]*\n)*)",
    re.MULTILINE,
)


class Table(NamedTuple):
    """The constants of one policy for one scenario."""

    remark: str
    """A comment that stands above the table."""
    constants: Mapping[str, Any]


def write_tables(path: Path, found: Mapping[tuple[str, str], Table], header: str) -> None:
    """Put tables into the file, by scenario and policy, and leave its other tables as they are.

    The file is replaced at once: whoever reads it meanwhile finds the old one or the new one.

    Args:
        path: of the file.
        found: the tables.
        header: comment at its beginning.

    Raises:
        ValueError: the file holds something else.
        OSError: it cannot be written.
    """
    tables = {**read_tables(path), **found}
    lines = [header]
    for (scenario, policy), table in sorted(tables.items()):
        key = scenario if re.fullmatch(r"[\w-]+", scenario) else f'"{scenario}"'
        body = "".join(f"{name} = {value!r}\n" for name, value in table.constants.items())
        lines.append(f"{table.remark}\n[{key}.{policy}]\n{body}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "\n".join(lines).encode())


def read_tables(path: Path) -> dict[tuple[str, str], Table]:
    """All tables of the file with their remarks; none where there is no file yet.

    Raises:
        ValueError: the file holds something that is not such a table.
    """
    constants = read_tuned(path)
    tables: dict[tuple[str, str], Table] = {}
    for match in _TABLE.finditer(path.read_text(encoding="utf-8") if path.exists() else ""):
        scenario, policy = match["scenario"].strip('"'), match["policy"]
        tables[scenario, policy] = Table(match["remark"].rstrip("\n"), constants[scenario][policy])
    held = {(scenario, policy) for scenario, policies in constants.items() for policy in policies}
    if held != set(tables):
        missing = ", ".join(".".join(key) for key in sorted(held - set(tables)))
        raise ValueError(
            f"{path}: the table {missing} has no comment above it; add one, or give another file"
        )
    return tables

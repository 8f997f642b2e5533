"""The file of tuned constants: one table for each scenario and policy, under the command that found it."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from baselines.tuned import read_tuned
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from training.cli import options
from training.files.atomic import write_atomically

_TABLE = re.compile(
    r"^(?P<remark>#[^\n]*\n)\[(?P<scenario>[^\n]+)\.(?P<policy>[\w-]+)\]\n(?P<body>(?:\w[^\n]*\n)*)",
    re.MULTILINE,
)

LOG = ("trace", "split", "time_unit")


class Table(NamedTuple):
    """The constants of one policy for one scenario."""

    remark: str
    """A comment that stands above the table."""
    constants: Mapping[str, Any]


def refuse_changed(changed: Overrides, scenario: str, files: Mapping[str, Path], package: Path) -> None:
    """Refuse to keep what was found on a changed scenario as if it had been found on the scenario itself.

    A log that a scenario waits for, and the choice of its windows, are no changes.

    Args:
        changed: the changes to the scenario.
        scenario: its name, or the path of its file.
        files: where the results are to stand, by the option that says so.
        package: the folder of the results that every command reads.

    Raises:
        ValueError: the scenario is changed, and a file is in that folder.
    """
    waits = load_scenario(scenario).trace is not None
    changes = {name: each for name, each in changed.changes.items() if not (waits and name in LOG)}
    for option, file in files.items():
        if changes and package.resolve() in file.resolve().parents:
            raise ValueError(
                f"{file} keeps what suits {scenario} as it is, not with {shlex.join(options(changes))}; "
                f"give another --{option}, or leave the changes out"
            )


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

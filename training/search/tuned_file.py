"""The file of tuned constants: one table for each scenario and policy, under the command that found it."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tomlkit
from tomlkit.container import Container
from tomlkit.items import Comment, Null
from tomlkit.items import Table as TomlTable

from baselines.tuned import read_tuned
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from training.cli import options
from training.files.atomic import write_atomically

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
        files: where the results are to stand, files or a folder, by the option that says so.
        package: the folder of the results that every command reads.

    Raises:
        ValueError: the scenario is changed, and a file is in that folder.
    """
    waits = load_scenario(scenario).trace is not None
    changes = {name: each for name, each in changed.changes.items() if not (waits and name in LOG)}
    for option, file in files.items():
        if changes and file.resolve().is_relative_to(package.resolve()):
            raise ValueError(
                f"{file} keeps what suits {scenario} as it is, not with {shlex.join(options(changes))}; "
                f"give another --{option}, or leave the changes out"
            )


class Place(NamedTuple):
    """Where a table stands in the parsed file."""

    table: TomlTable
    remark: tuple[Container, range] | None
    """The container that holds the comment above the table, and the positions of its lines in there."""

    @property
    def text(self) -> str:
        """The comment as one line."""
        assert self.remark is not None
        container, lines = self.remark
        words = [container.body[line][1].as_string().strip().removeprefix("#").strip() for line in lines]
        return f"# {' '.join(words)}"


def write_tables(path: Path, found: Mapping[tuple[str, str], Table], header: str) -> None:
    """Put tables into the file, by scenario and policy, and leave all else in it byte for byte.

    A table that is there keeps its place; others are added at the end. The file is replaced at
    once: whoever reads it meanwhile finds the old one or the new one.

    Args:
        path: of the file.
        found: the tables.
        header: comment at the beginning of a file that is not there yet.

    Raises:
        ValueError: the file holds something else.
        OSError: it cannot be written.
    """
    read_tables(path)
    document = tomlkit.parse(path.read_text(encoding="utf-8") if path.exists() else header)
    places = _places(document)
    added = ""
    for (scenario, policy), table in sorted(found.items()):
        place = places.get((scenario, policy))
        if place is None:
            added += f"\n{_text(scenario, policy, table)}"
            continue
        assert place.remark is not None  # `read_tables` refuses a table without one
        if table.remark != place.text:
            container, lines = place.remark
            for line in lines:
                container.body[line] = (None, Null())
            container.body[lines[0]] = (None, tomlkit.comment(table.remark.removeprefix("#").strip()))
        _set_all(place.table, table.constants)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (tomlkit.dumps(document) + added).encode())


def read_tables(path: Path) -> dict[tuple[str, str], Table]:
    """All tables of the file with their remarks; none where there is no file yet.

    Raises:
        ValueError: the file holds something that is not such a table.
    """
    constants = read_tuned(path)
    if not constants:
        return {}
    tables: dict[tuple[str, str], Table] = {}
    for key, place in _places(tomlkit.parse(path.read_text(encoding="utf-8"))).items():
        if place.remark is None:
            raise ValueError(
                f"{path}: the table {'.'.join(key)} has no comment above it; add one, or give another file"
            )
        scenario, policy = key
        tables[key] = Table(place.text, constants[scenario][policy])
    return tables


def _places(document: Container) -> dict[tuple[str, str], Place]:
    """Where each table stands, by scenario and policy."""
    places: dict[tuple[str, str], Place] = {}
    above: tuple[Container, range] | None = None
    for keys, container, position in _items(document, ()):
        item = container.body[position][1]
        if isinstance(item, TomlTable) and len(keys) == 2:
            places[keys[0], keys[1]] = Place(item, above)
        if not isinstance(item, Comment):
            above = None
        elif above is not None and above[0] is container and above[1].stop == position:
            above = (container, range(above[1].start, position + 1))
        else:
            above = (container, range(position, position + 1))
    return places


def _items(container: Container, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Container, int]]:
    """Every item of a file in its order, with the names of the tables that it stands in and its own."""
    for position, (key, item) in enumerate(container.body):
        own = keys if key is None else (*keys, key.key)
        if not (isinstance(item, TomlTable) and item.is_super_table()):
            yield own, container, position
        if isinstance(item, TomlTable):
            yield from _items(item.value, own)


def _set_all(table: TomlTable, constants: Mapping[str, Any]) -> None:
    """Give a table these constants and no others, in place."""
    for name in [name for name in table if name not in constants]:
        del table[name]
    # Blank lines and the remark of the next table are this one's last items; new constants go above.
    body = table.value.body
    below = len(body)
    while below and body[below - 1][0] is None:
        below -= 1
    tail = body[below:]
    del body[below:]
    for name, value in constants.items():
        table[name] = value
    body.extend(tail)


def _text(scenario: str, policy: str, table: Table) -> str:
    """A table of its own, under its remark."""
    document = tomlkit.document()
    document[scenario] = tomlkit.table(is_super_table=True)
    document[scenario][policy] = tomlkit.item(dict(table.constants))  # pyright: ignore
    return f"{table.remark}\n{tomlkit.dumps(document)}"

"""Tables in Markdown."""

from collections.abc import Mapping, Sequence


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table in Markdown."""
    header = [name.replace("\n", " ") for name in rows[0]]
    rule = [
        "---" if name in ("policy", "scenario") or (not k and name != "#") else "---:"
        for k, name in enumerate(header)
    ]
    lines = [header, rule, *(_marked(row) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def _marked(row: Mapping[str, str]) -> list[str]:
    """The cells of a row, its name in bold where it is the best."""
    return [f"**{cell}**" if name == "policy" and row.get("#") == "1" else cell for name, cell in row.items()]

"""Docstrings as Sphinx reads them: |x| is an absolute value in them, never a substitution."""

from typing import Any

from sphinx.application import Sphinx


def _escape(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    # The text that every NamedTuple puts beside its fields says nothing.
    lines[:] = [line.replace("|", r"\|") for line in lines if not line.startswith("Alias for field number")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Change every docstring before it is parsed."""
    app.connect("autodoc-process-docstring", _escape)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

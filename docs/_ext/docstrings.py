"""Docstrings and signatures as readers expect them, where autodoc would misread those of this project."""

import inspect
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx

_COLON = "\ue000"  # stands for a colon while napoleon looks for one
_LONGEST_DEFAULT = 12


def _before_napoleon(_app: Any, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Take |x| for an absolute value, and `R: a share` for a sentence that does not begin with a type."""
    lines[:] = [line.replace("|", r"\|") for line in lines if not line.startswith("Alias for field number")]
    if what in ("attribute", "property", "data") and lines:
        lines[0] = lines[0].replace(":", _COLON)


def _after_napoleon(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = [line.replace(_COLON, ":") for line in lines]


def _signature(
    _app: Any, _what: str, _name: str, given: Any, _options: Any, _signature: Any, returns: Any
) -> tuple[str, Any] | None:
    """Leave out long defaults, such as a whole platform."""
    if not (inspect.isclass(given) and issubclass(given, BaseModel)):
        return None
    shown: list[str] = []
    for name, field in given.model_fields.items():
        default = "" if field.is_required() else repr(field.default)
        shown.append(
            name + ("" if not default else f"={default if len(default) <= _LONGEST_DEFAULT else '…'}")
        )
    return f"(*, {', '.join(shown)})", returns


def setup(app: Sphinx) -> dict[str, Any]:
    """Listen on both sides of napoleon, whose own priority is 500."""
    app.connect("autodoc-process-docstring", _before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", _after_napoleon, priority=600)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

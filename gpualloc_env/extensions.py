"""Modules of a user that register scenarios, policies, metrics, log formats or allocators."""

import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

VARIABLE = "GPUALLOC_EXTENSIONS"
"""Environment variable: names of modules, with commas between them, that every command imports first."""


def import_extensions() -> None:
    """Import the modules that the environment variable names.

    Raises:
        ValueError: one of them is in neither the current folder nor an installed package.
    """
    for name in os.environ.get(VARIABLE, "").split(","):
        if name.strip():
            module_of_user(name.strip(), VARIABLE)


def module_of_user(name: str, asked_by: str) -> ModuleType:
    """A module of the current folder or of an installed package.

    Args:
        name: of the module.
        asked_by: what names it, for messages.

    Raises:
        ValueError: there is no such module, or it is a path.
    """
    if name.startswith(".") or "/" in name or os.sep in name:
        raise ValueError(
            f"{asked_by}: {name!r} is a path; give the name of a module, such as {Path(name).stem}, and "
            "start in its folder, or install it"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        # Another one may be missing that the module itself imports.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"{asked_by}: cannot import module {name!r}, neither from the current folder nor from an "
            "installed package"
        ) from None

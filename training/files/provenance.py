"""What made a result: the configuration, the versions and the commit."""

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gpualloc_env
from training.files.atomic import write_atomically

CHECKOUT = Path(__file__).parents[2]
PACKAGES = ("numpy", "gymnasium", "numba", "stable-baselines3", "torch")


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write what a run was asked to do, and the versions and the commit that did it, as JSON."""
    text = json.dumps(provenance(config), indent=2, ensure_ascii=False, default=str) + "\n"
    write_atomically(path, text.encode())


def provenance(config: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for as `config`, and the `versions` and the `git_commit` that do it."""
    versions = {
        "gpualloc_env": gpualloc_env.__version__,
        **{package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
    }
    return {"config": dict(config), "versions": versions, "git_commit": git_commit()}


def git_commit() -> str | None:
    """Hash of the checkout's commit, with `-dirty` where files differ from it.

    None where the package stands in no checkout of its own, such as installed in another project's.
    """
    if not (CHECKOUT / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()

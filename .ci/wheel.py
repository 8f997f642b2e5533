"""What a wheel holds besides the package: the folders beside it, as parts of it.

`baselines` and `training` stand at the top of the repository; at the top of site-packages other people's
packages of that name live. A wheel has them as `gpualloc_env.baselines` and `gpualloc_env.training`: the
files are copied with their imports, and the commands that they name, written so.
"""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("baselines", "training")
KINDS = {".py", ".toml", ".csv", ".npz", ".html"}
LEFT_OUT = "training/results"
REWRITTEN = (
    (re.compile(r"^(\s*from )(baselines|training)\b", re.MULTILINE), r"\1gpualloc_env.\2"),
    (re.compile(r"python -m training\.(\w+|\{\w+\})"), r"gpualloc \1"),
)


class WheelHook(BuildHookInterface):
    """Copies the folders while a wheel is built."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the copies; an editable install has the folders themselves."""
        self.copies = Path(tempfile.mkdtemp())
        if version == "editable":
            return
        root = Path(self.root)
        for path in sorted(each for folder in FOLDERS for each in (root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.suffix not in KINDS or name.startswith(LEFT_OUT):
                continue
            copy = self.copies / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes()
            if path.suffix == ".py":
                text = content.decode()
                for pattern, replacement in REWRITTEN:
                    text = pattern.sub(replacement, text)
                content = text.encode()
            copy.write_bytes(content)
            build_data["force_include"][str(copy)] = f"gpualloc_env/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the copies."""
        shutil.rmtree(self.copies)

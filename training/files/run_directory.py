"""The directory of a training run: whose it is, and whether the run is complete."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.files.atomic import UNFINISHED
from training.files.provenance import write_config

CONFIG, CHECKPOINT, RESULT, TENSORBOARD = "config.json", "checkpoint.pt", "result.json", "tensorboard"
# They change what is shown and where, not what is trained.
FREE = ("out", "progress")


@contextmanager
def claimed(out: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Hold the directory for a run with these settings: a fresh one, or the same run again.

    Raises:
        ValueError: the directory belongs to a run with other settings, or one that is running.
        OSError: it cannot be written, or holds something else.
    """
    out.mkdir(parents=True, exist_ok=True)
    config = out / CONFIG
    if not config.exists():
        others = [path.name for path in out.iterdir() if not path.name.startswith(UNFINISHED)]
        if others:
            raise FileExistsError(
                f"{out} is not empty and holds no training run ({min(others)}); give another --out"
            )
        write_config(config, settings)
    refuse_other_settings(config, settings)
    with config.open(encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"the run in {out} is going on in another process; wait for it") from None
        yield


def refuse_other_settings(config: Path, settings: Mapping[str, Any]) -> None:
    """Compare with what the run was started with, by the names of the command line."""
    there = json.loads(config.read_text(encoding="utf-8"))["config"]
    asked = json.loads(json.dumps(dict(settings), default=str))
    for name in {**there, **asked}:
        if name not in FREE and there.get(name) != asked.get(name):
            raise ValueError(
                f"{config.parent} holds a run with {name} = {there.get(name)}, asked for is "
                f"{asked.get(name)}; repeat its settings to continue it, or give another --out"
            )

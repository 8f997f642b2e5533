"""The directory of a training run: whose it is, and whether the run is complete."""

import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import lock_descriptor

from training.files.atomic import UNFINISHED
from training.files.provenance import write_config

CONFIG, CHECKPOINT, RESULT, TENSORBOARD = "config.json", "checkpoint.pt", "result.json", "tensorboard"
MODEL, TRANSFORM, EVOLUTION = "model.zip", "transform.json", "evolution.pkl"
# They change what is shown and where, not what is trained.
FREE = ("out", "progress")


@contextmanager
def claimed(out: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Hold the directory for a run with these settings: a fresh one, or the same run again.

    Call it last, when all else is known to be right: it makes the directory.

    Raises:
        ValueError: the directory belongs to a run with other settings, or one that is running.
        OSError: it cannot be written, or holds something else.
    """
    check_claim(out, settings)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        # Another process may have begun and left since.
        check_claim(out, settings)
        fresh = not (out / CONFIG).exists()
        if fresh:
            write_config(out / CONFIG, settings)
        try:
            yield
        except BaseException as error:
            # A run that did not get as far as to write anything leaves nothing behind, and one that failed
            # leaves no curves alone.
            nothing = {CONFIG, TENSORBOARD} if isinstance(error, Exception) else {CONFIG}
            if fresh and {path.name for path in out.iterdir()} <= nothing:
                shutil.rmtree(out)
            raise


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold a lock of the directory itself: its files are replaced while a run goes on."""
    directory = os.open(out, os.O_RDONLY)
    try:
        if not lock_descriptor(directory, blocking=False):
            raise ValueError(f"the run in {out} is going on in another process; wait for it")
        yield
    finally:
        os.close(directory)


def check_claim(out: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a directory that `claimed` would refuse, without making anything.

    Raises:
        ValueError: it belongs to a run with other settings.
        OSError: it is none, or holds something else.
    """
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is not a directory; give another --out")
    if (out / CONFIG).exists():
        refuse_other_settings(out / CONFIG, settings)
        return
    others = (
        [path.name for path in out.iterdir() if not path.name.startswith(UNFINISHED)] if out.exists() else []
    )
    if others:
        raise FileExistsError(
            f"{out} is not empty and holds no training run ({min(others)}); give another --out"
        )


def refuse_other_settings(config: Path, settings: Mapping[str, Any]) -> None:
    """Compare with what the run was started with, by the names of the command line."""
    there = read_json(config)["config"]
    asked = json.loads(json.dumps(dict(settings), default=str))
    # Another version may have added a setting or dropped one; another command has some that this one has
    # not, and lacks some that this one has.
    foreign = _only_in(there, asked)
    if foreign and _only_in(asked, there):
        raise ValueError(
            f"{config.parent} holds something else than a training run that could be continued: its "
            f"{config.name} has {foreign[0]}, which this command has not; give another --out"
        )
    for name in {**there, **asked}:
        if name not in FREE and there.get(name) != asked.get(name):
            raise ValueError(
                f"{config.parent} holds a run with {name} = {there.get(name)}, asked for is "
                f"{asked.get(name)}; repeat its settings to continue it, or give another --out"
            )


def _only_in(settings: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """Names of the settings with a value that others do not have at all."""
    return [name for name, value in settings.items() if value is not None and name not in {*FREE, *others}]


def read_json(path: Path) -> dict[str, Any]:
    """What one of the JSON files of a run says.

    Raises:
        ValueError: it is damaged, or holds something else.
        OSError: it cannot be read.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(path, error) from None
    if not isinstance(contents, dict) or (path.name == CONFIG and "config" not in contents):
        raise damaged(path, "it holds something else")
    return contents


def archive_problem(path: Path) -> str:
    """What is wrong with the zip archive that a model or a checkpoint is; empty where it is whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except OSError:
        raise
    except Exception as error:  # a damaged archive fails in as many ways as it has parts
        return str(error)
    return f"{broken} in it is broken" if broken else ""


def damaged(path: Path, reason: object) -> ValueError:
    """What to raise where a file of a finished run cannot be used."""
    return ValueError(
        f"{path} is damaged or of no training run ({reason}); give another directory, or delete "
        f"{path.parent} and train the run again"
    )

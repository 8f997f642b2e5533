"""Writing a directory of results all at once or not at all."""

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from training.files.atomic import UNFINISHED


@contextmanager
def staged(out: Path, entries: Collection[str]) -> Iterator[Path]:
    """Give an empty directory whose entries replace those of `out` when the block succeeds.

    It is made at once, on the same disk, so that an `out` that cannot be written fails before any
    work is done, and a run that fails leaves no trace.

    Args:
        out: where the results are to stand; its parents are made at the end.
        entries: the names that the block will write. A directory that holds other things and not
            all of these is somebody else's, and is refused.

    Raises:
        OSError: `out` is not a directory, cannot be written, or is somebody else's.
    """
    out = out.absolute()
    parent = next(path for path in (out, *out.parents) if path.exists())
    if not parent.is_dir():
        raise NotADirectoryError(f"cannot write to {out}: {parent} is not a directory")
    if parent == out and any(out.iterdir()) and not all((out / name).exists() for name in entries):
        raise FileExistsError(f"{out} is not empty and holds no earlier results; give another directory")
    try:
        staging = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent))
    except OSError as error:
        raise OSError(f"cannot write to {out}: {error.strerror}") from None
    try:
        yield staging
        out.mkdir(parents=True, exist_ok=True)
        for entry in sorted(staging.iterdir()):
            target = out / entry.name
            if target.is_dir():
                shutil.rmtree(target)
            entry.replace(target)
    finally:
        shutil.rmtree(staging)

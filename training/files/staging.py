"""Writing a directory of results all at once or not at all."""

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from training.files.atomic import UNFINISHED


@contextmanager
def staged(out: Path, owned: Collection[str], mark: str) -> Iterator[Path]:
    """Give an empty directory whose entries become those of `out` when the block succeeds.

    Afterwards `out` holds, of the names that the command owns, what this block wrote and nothing
    older; other files in it stay. The directory is made at once, on the same disk, so that an `out`
    that cannot be written fails before any work is done, and a run that fails leaves no trace.

    Args:
        out: where the results are to stand; its parents are made at the end.
        owned: every name that the command may write.
        mark: the one that each of its results has. A directory that holds other things and no such
            file is somebody else's, and is refused.

    Raises:
        OSError: `out` is not a directory, cannot be written, or is somebody else's.
    """
    out = out.absolute()
    parent = next(path for path in (out, *out.parents) if path.exists())
    if not parent.is_dir():
        raise NotADirectoryError(f"cannot write to {out}: {parent} is not a directory")
    if parent == out and any(out.iterdir()) and not (out / mark).is_file():
        raise FileExistsError(f"{out} is not empty and holds no earlier results; give another directory")
    try:
        staging = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent))
    except OSError as error:
        raise OSError(f"cannot write to {out}: {error.strerror}") from None
    try:
        yield staging
        out.mkdir(parents=True, exist_ok=True)
        for name in sorted({*owned, *(entry.name for entry in staging.iterdir())}):
            replace(out / name, staging / name)
    finally:
        shutil.rmtree(staging)


def replace(target: Path, made: Path) -> None:
    """Put what was made in the place of an earlier result, or remove that where nothing was made."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    elif not made.is_file():
        target.unlink(missing_ok=True)
    if made.exists():
        made.replace(target)

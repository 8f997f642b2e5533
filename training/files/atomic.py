"""Files that are there in full or not at all, whatever moment the process is killed at."""

import os
import tempfile
from pathlib import Path

UNFINISHED = ".unfinished-"


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path` first, and rename only what has reached the disk.

    A reader finds the former content or the new one, never a part of it.
    """
    temporary = path.with_name(UNFINISHED + path.name)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before the work whose result it is to hold.

    Raises:
        OSError: its folder, or the one in which that would be made, cannot be written.
    """
    folder = next(each for each in path.absolute().parents if each.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}; give another file") from None

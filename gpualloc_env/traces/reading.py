"""Opening a log: a file, a pipe or standard input, plain or gzipped, in a process that was forked too."""

import gzip
import io
import os
import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from gymnasium.vector.utils import CloudpickleWrapper

from gpualloc_env.traces.log import TraceError

Read = TypeVar("Read")


@contextmanager
def opened(path: Path, kind: str) -> Generator[IO[bytes]]:
    """The bytes of a log, unpacked where they are gzipped.

    Args:
        path: a file, a pipe, or `-` for standard input.
        kind: of log that is wanted, for messages.

    Raises:
        TraceError: the file is missing, truncated, damaged or cannot be read.
    """
    if path.is_dir():
        raise TraceError(f"{path} is a folder; give the path of {kind} in it")
    if str(path) != "-" and not path.exists():
        raise TraceError(f"{path}: no such file; give the path of {kind}")
    try:
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as raw:
            file: Any = raw  # a buffered reader, which a pipe has too
            packed: bool = file.peek(2)[:2] == b"\x1f\x8b"
            # The buffer makes the lines of a gzip file as cheap as those of a plain one.
            yield io.BufferedReader(gzip.GzipFile(fileobj=file)) if packed else file
        return
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        problem = f"{path}: the gzip file is truncated or damaged ({error}); fetch it again"
    except OSError as error:
        problem = f"{path}: cannot be read: {error}"
    raise TraceError(problem)


def refuse_pipe(path: str | Path, reader: str) -> None:
    """Refuse a log that can be read only once.

    Args:
        path: of the log.
        reader: what reads it more often, for the message.

    Raises:
        TraceError: it is a pipe, or standard input.
    """
    if str(path) == "-" or Path(path).is_fifo():
        raise TraceError(f"{path}: {reader} reads its log more than once; give a file")


_PROCESS = os.getpid()


def forked() -> bool:
    """Whether this process was forked from one whose reader's threads are not in it: reading would hang."""
    return os.getpid() != _PROCESS


def in_new_process(path: Path, read: Callable[[], Read]) -> Read:
    """What a function returns in a new process, which has all of its threads.

    Args:
        path: of the log that it reads, for messages.
        read: the function; what it refers to need not be importable by name.

    Raises:
        TraceError: it raised one, or cannot be run elsewhere.
    """
    program = "from gpualloc_env.traces.reading import answer; answer()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        asked = pickle.dumps(CloudpickleWrapper(read))  # pyright: ignore[reportArgumentType]
        command = [sys.executable, "-c", program, asked.hex()]
        run = subprocess.run(command, capture_output=True, env=environment, check=True)
        result = pickle.loads(run.stdout)
    except (OSError, subprocess.CalledProcessError, pickle.PicklingError, TypeError) as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
        raise TraceError(
            f"{path} cannot be read in a process that was forked: {said[-1] if said else error}; read it "
            "before the fork, or start processes with the method 'spawn'"
        ) from None
    if isinstance(result, TraceError):
        raise result
    return result


def answer() -> None:
    """Write what the function on the command line returns, or the error, to standard output."""
    read = pickle.loads(bytes.fromhex(sys.argv[1]))
    try:
        result: Any = read()
    except TraceError as error:
        result = error
    sys.stdout.buffer.write(pickle.dumps(result))

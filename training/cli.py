"""How a command starts, speaks and ends, and how it is written down."""

import logging
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from io import TextIOWrapper
from typing import Any, NoReturn, TypeVar

import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from training.limits import check_limits, with_limits_in_help

Config = TypeVar("Config")
Item = TypeVar("Item")
SECONDS_A_LINE = 10.0
MISTAKE, INTERRUPTED, TERMINATED = 2, 130, 143


def run(
    main: Callable[[Config], None],
    config: type[Config],
    args: Sequence[str] | None = None,
    prog: str | None = None,
) -> None:
    """Read the command line and run the command; a mistake or a signal ends it without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that has no minus sign or no box drawing gets question marks, not a traceback.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    # Only here, so that the list of commands needs nothing of the environment.
    from gpualloc_env.extensions import import_extensions

    try:
        import_extensions()
    except ValueError as error:
        fail(error)
    try:
        asked = tyro.cli(with_limits_in_help(config), args=args, prog=prog)
    except BrokenPipeError:
        _read_enough()
    call(main, asked)


def call(main: Callable[[Config], None], config: Config) -> None:
    """Run a command; a mistake in what it was asked ends with status 2 and the message alone."""
    try:
        with terminable():
            check_limits(config)
            if (cluster := getattr(config, "ray", None)) is not None:
                from baselines.processes import connect

                connect(cluster)
            main(config)
    except BrokenPipeError:
        _read_enough()
    except (ValueError, OSError, FloatingPointError) as error:
        fail(error)
    except ImportError as error:
        # Only here, so that the list of commands and their help need nothing of the environment.
        from gpualloc_env.doors import NotInstalled

        if not isinstance(error, NotInstalled):
            raise
        fail(error)
    except MemoryError as error:
        fail(f"this machine has too little memory for that ({error}); ask for less at a time")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        # A pool that ends would tell of each task that it can give to none of its processes any more.
        logging.getLogger("concurrent.futures").disabled = True
        sys.exit(INTERRUPTED)
    except Terminated:
        print("terminated", file=sys.stderr, flush=True)
        # Only here, so that no command starts later for it.
        from multiprocessing import active_children

        # This end cleans up nothing else: idle processes of a pool would hold the output open for minutes.
        for process in active_children():
            process.terminate()
        # A thread may wait for what this one held when the signal came: nobody waits for threads now.
        os._exit(TERMINATED)


def _read_enough() -> NoReturn:
    """End where whoever read the output has seen enough."""
    # Python would complain again when it flushes.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


class Terminated(BaseException):
    """SIGTERM has come: what is unfinished is removed on the way out."""


_STOPS: dict[int, type[BaseException]] = {signal.SIGTERM: Terminated, signal.SIGINT: KeyboardInterrupt}
_LOOKS_AGAIN_S = 0.05  # after which a signal that found the compiler at work comes once more


def fail(error: Exception | str) -> NoReturn:
    """End with the message that names the mistake and its remedy."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(MISTAKE)


@contextmanager
def terminable() -> Iterator[None]:
    """End on SIGTERM as on an interruption, so that unfinished files are removed on the way out.

    Either waits for the compiler: what is raised while that calls back would be printed and forgotten.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        # What has not imported it compiles nothing.
        compiler = sys.modules.get("gpualloc_env.compiled")
        if compiler is None or not compiler.compiling():
            raise _STOPS[number]
        # To this thread, which may sleep by then.
        again = threading.Timer(_LOOKS_AGAIN_S, signal.pthread_kill, (threading.get_ident(), number))
        again.daemon = True
        again.start()

    former = {number: signal.getsignal(number) for number in _STOPS}
    for number, handler in former.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def status_console() -> Console:
    """Where a command says what it is doing. Names are shown as they are, whatever brackets they hold."""
    return Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


def results_console() -> Console:
    """Where a command prints its results, 80 letters wide where the output is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 80, markup=False, highlight=False)


def progress_bars(console: Console, *, counted: bool = False, shown: bool = True, width: int = 0) -> Progress:
    """A bar for each task of a command, or a line every ten seconds where there is no terminal.

    Args:
        console: where to.
        counted: show how much is done of how much, and the time left, instead of the time so far.
        shown: whether anything is shown.
        width: letters of a description, so that the bars stand below each other.
    """
    columns: list[ProgressColumn] = [TextColumn(f"{{task.description:<{width}}}", markup=False), BarColumn()]
    columns += [MofNCompleteColumn(), TimeRemainingColumn()] if counted else [TimeElapsedColumn()]
    if shown and not console.is_terminal:
        return ProgressLines(*columns, console=console, disable=True)
    return Progress(*columns, console=console, disable=not shown)


class ProgressLines(Progress):
    """Progress as lines of a log: of a task that has moved, at most every ten seconds, and at its end."""

    def __init__(self, *columns: ProgressColumn, console: Console, disable: bool) -> None:
        # Without a display there is nothing to refresh: the thread that would count for `track` ends at once.
        super().__init__(*columns, console=console, disable=disable, auto_refresh=False)
        self._last, self._ended = time.monotonic(), set[TaskID]()

    def update(self, task_id: TaskID, **fields: Any) -> None:
        """Move a task on, and say so if it is time."""
        super().update(task_id, **fields)
        self._say(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Move a task on, and say so if it is time."""
        super().advance(task_id, advance)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        now = time.monotonic()
        task = next(task for task in self.tasks if task.id == task_id)
        ends = task.finished and task_id not in self._ended
        if now - self._last < SECONDS_A_LINE and not ends:
            return
        self._last = now
        if task.finished:
            self._ended.add(task_id)
        left = f", {timedelta(seconds=round(task.time_remaining))} left" if task.time_remaining else ""
        done = f"{task.completed:,.0f} of {task.total or 0:,.0f}"
        self.console.print(f"{task.description}: {done} ({task.percentage:.0f} %){left}")


def track(items: Sequence[Item], description: str, console: Console) -> Iterable[Item]:
    """The items, with a bar that shows how many have been taken."""
    with progress_bars(console) as progress:
        yield from progress.track(items, description=description)


def command_line(command: str, *words: object, **given: Any) -> str:
    """The command line of one of the commands, its positional words and then options by their names."""
    return shlex.join([*f"python -m training.{command}".split(), *map(str, words), *options(given)])


def asked(config: Any, usual: Any) -> dict[str, Any]:
    """What of a configuration is not as usual, by name."""
    usually = asdict(usual)
    return {name: value for name, value in asdict(config).items() if value != usually[name]}


def options(given: Mapping[str, Any]) -> list[str]:
    """The words of a command line that asks for some values, by the names of its configuration.

    The scenario comes first, then what is changed about it; what is empty is left out.
    """
    words: list[str] = []
    for name, value in sorted(given.items(), key=lambda item: item[0] != "scenario"):
        option = name.replace("_", "-")
        if isinstance(value, Mapping | list | tuple) and not value:
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, Mapping):
            words += [f"--{option}", *(str(word) for item in value.items() for word in item)]
        elif isinstance(value, list | tuple):
            words += [f"--{option}", *map(str, value)]
        elif value is not None:
            words += [f"--{option}", str(value)]
    return words

"""`RayWorkers`: the option of the commands whose work several machines can share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

from baselines.processes import Result, Task, in_processes
from training.cli import progress_bars


@dataclass(frozen=True, kw_only=True)
class RayWorkers:
    """Who does the work of a command: this process, whose batches use its cores, or a Ray cluster."""

    ray: str | None = None
    """Address of a Ray cluster that shares the work, as `ray start` says it, or `local` for one on this
    machine. All its machines need this package. The results are the same."""

    def share(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], description: str, console: Console
    ) -> list[Result]:
        """Results of a function for each task, in order, with a bar that shows how many are done."""
        with progress_bars(console) as progress:
            bar = progress.add_task(description, total=len(tasks))
            return in_processes(
                function, tasks, self.ray or 1, lambda done: progress.update(bar, completed=done)
            )

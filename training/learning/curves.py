"""TensorBoard's curves of a run that may be continued: one event file for each segment."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from torch.utils.tensorboard import SummaryWriter


class Curves(TensorBoardOutputFormat):
    """A segment of the curves, from the step at which the run was started or continued."""

    def __init__(self, directory: Path, group: str, written: Mapping[str, int], step: int) -> None:
        """Go back to what had been written at a checkpoint, and begin the next segment.

        Args:
            directory: of the event files.
            group: what the names of all curves begin with, so that runs on other scenarios have others.
            written: length of each of them at the checkpoint [bytes]; what follows is dropped.
            step: of the checkpoint, the last one whose events are kept.
        """
        self.directory, self.group = directory, group
        for path in self._files:
            if path.name in written:
                os.truncate(path, min(written[path.name], path.stat().st_size))
            else:
                path.unlink()
        # TensorBoard reads files in the order of their names, which begin with the second of their creation.
        while any(path.name.split(".")[3] == str(int(time.time())) for path in self._files):
            time.sleep(0.05)
        # A TensorBoard that is open meanwhile has read the dropped events; this tells it to forget them.
        self.writer = SummaryWriter(str(directory), purge_step=step + 1 if step else None)
        self._is_closed = False

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Write what stable-baselines3 has logged."""
        values, excluded = (
            {f"{self.group}: {key}": value for key, value in each.items()}
            for each in (key_values, key_excluded)
        )
        super().write(values, excluded, step)

    def written(self) -> dict[str, int]:
        """Length of each event file [bytes], all of it on disk."""
        self.writer.flush()
        for path in self._files:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        return {path.name: path.stat().st_size for path in self._files}

    @property
    def _files(self) -> list[Path]:
        return sorted(self.directory.glob("events.out.tfevents.*"))

    def logger(self) -> Logger:
        """What stable-baselines3 logs to."""
        return Logger(str(self.directory), [self])

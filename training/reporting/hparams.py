"""Rows of TensorBoard's HParams table."""

from collections.abc import Mapping
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams


def add_hparams(
    writer: SummaryWriter,
    row: Mapping[str, Any],
    metrics: Mapping[str, float],
    columns: Mapping[str, Any] | None = None,
) -> None:
    """Add a row to the HParams table.

    `SummaryWriter.add_hparams` would open a run of its own below this one, and with it a second row.

    Args:
        writer: of the run.
        row: its cells.
        metrics: tags of its scalars that are columns, too.
        columns: cells of all columns that any row has; by default those of this one. TensorBoard takes
            them from the first run that it reads.
    """
    kept = (bool, int, float)
    cells, every = (
        {name: value if isinstance(value, kept) else str(value) for name, value in each.items()}
        for each in (row, row if columns is None else columns)
    )
    head, *_ = hparams(every, dict(metrics))
    _, *rest = hparams(cells, dict(metrics))
    assert writer.file_writer is not None
    for summary in (head, *rest):
        writer.file_writer.add_summary(summary, 0)

"""Rows of the record of an episode by name."""

from gpualloc_env.env import INFO_COLUMNS
from gpualloc_env.simulation.state import COLD_START, DELAY, LATE, REALLOCATED

RECORDED_ROWS = {
    **INFO_COLUMNS,
    "late": LATE,
    "delay": DELAY,
    "reallocated": REALLOCATED,
    "cold_start": COLD_START,
}

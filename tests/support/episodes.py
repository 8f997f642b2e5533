"""Batches at the start of an episode."""

import numpy as np

from gpualloc_env import Batch


def started(scenario, num_envs=1, seed=0, *, record=False):
    """A batch whose episodes have begun."""
    batch = Batch(scenario, num_envs, record=record)
    batch.seed(seed)
    batch.reset()
    return batch


def bits(records):
    """The bytes of every column of records; what lies between the columns is no part of them."""
    if records.dtype.names is None:
        return records.tobytes()
    return b"".join(bits(records[name]) for name in records.dtype.names)


def table(records):
    """Records of numbers as one array of float64, (…, columns)."""
    return np.stack([records[name] for name in records.dtype.names], axis=-1).astype(np.float64)

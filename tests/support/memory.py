"""How much memory environments take, and a step of them touches."""

import numpy as np

from gpualloc_env import Batch


def size(scenario, num_envs, record=False):
    """Bytes of all arrays of a batch; one that is a part of another's memory counts once."""
    batch = Batch(scenario, num_envs, record=record)
    arrays = [value for value in (*vars(batch).values(), *batch.world) if isinstance(value, np.ndarray)]
    owners = {}
    for array in arrays:
        while isinstance(array.base, np.ndarray):
            array = array.base
        owners[id(array)] = array.nbytes
    return sum(owners.values())


def bytes_per_env(scenario, record=False):
    """What one more environment takes."""
    return size(scenario, 3, record) - size(scenario, 2, record)


def bytes_per_step(scenario):
    """What a step of one environment reads or writes, each byte counted once.

    That is everything but the arrays over time, of which it is one row.
    """
    longer = scenario.model_copy(update={"steps": scenario.steps + 1})
    per_row = bytes_per_env(longer) - bytes_per_env(scenario)
    return bytes_per_env(scenario) - scenario.steps * per_row

"""Allocators of clusters by name: from a `ClusterView` to fractions of each GPU, shaped as its shares.

Each places agents on GPUs and splits the GPUs among them; the latter is the work of any policy of one GPU.
"""

from collections.abc import Callable

import numpy as np

from baselines import online
from baselines.cluster.policies import Demand, Placed, Replicas, hierarchical
from baselines.tuned import tuned
from gpualloc_env.allocator.placement import best_fit_decreasing, by_popularity, everywhere
from gpualloc_env.simulation.placement import ClusterView
from gpualloc_env.simulation.state import Array

ClusterPolicy = Callable[[ClusterView], Array]

CLUSTER_POLICIES: dict[str, ClusterPolicy] = {
    "spread": Placed(everywhere),
    "packed": Placed(best_fit_decreasing),
    "popularity": Placed(by_popularity),
    "lru": Replicas(target=np.inf),
    "autoscaler": Replicas(),
    "hierarchical": hierarchical(),
    "demand": Demand(lower=online.RecedingHorizon(**tuned()["team"]["receding-horizon"])),
}
"""Every policy with the constants that its class declares; all have memory, see `baselines.fresh`."""

__all__ = ["CLUSTER_POLICIES", "ClusterPolicy", "Demand", "Placed", "Replicas", "hierarchical"]

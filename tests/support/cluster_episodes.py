"""Episodes of clusters made by hand."""

from gpualloc_env.cluster_batch import ClusterBatch
from gpualloc_env.simulation.tasks import LOG


def replayed_cluster(scenario, tasks, num_envs=1, record=True):
    """A batch of clusters at the start of episodes that play these tasks."""
    law = scenario.source()._replace(kind=LOG, recorded=tasks, episodes=1)
    batch = ClusterBatch(scenario, num_envs, record=record, source=law)
    batch.seed(0)
    batch.reset()
    return batch

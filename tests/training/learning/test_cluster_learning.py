"""The learned allocator of clusters: equivariant, the baseline before training, exported as it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.trained_run import TRAINED, interrupt

from baselines import fresh, policy_for
from gpualloc_env import AllocatorError, ClusterAllocator, load_scenario
from gpualloc_env.allocator.allocator import Allocator
from gpualloc_env.allocator.cluster import CLUSTER_COLUMNS, OUTPUTS, ClusterDecider, instance_rows
from gpualloc_env.cluster_batch import ClusterBatch
from gpualloc_env.simulation.placement import AGENT_FEATURES, GPU_FEATURES, INSTANCE_FEATURES
from training.artifacts.policies import AgentsError, load_policy
from training.evaluation.evaluate import evaluate
from training.export import ExportConfig
from training.export import main as export
from training.learning.allocators.action_transform import placed_corrections
from training.learning.allocators.allocator_policy import CommonNoise
from training.learning.learner import make_learner, with_defaults
from training.train import TrainConfig, check
from training.train import main as train

SHORT = {**TRAINED, "scenario": "cluster-small", "allocator": "ppo-cluster-hierarchical", "num_envs": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run, whose steps are long, so that it matters."""
    out = tmp_path_factory.mktemp("cluster") / "run"
    changes = {"steps": 10, "total_steps": 256, "validation_episodes": 4, "validate_every": 0}
    train(TrainConfig(**{**SHORT, **changes, "learning_rate": 0.03, "critic_updates": 0}, out=out))
    return out


@pytest.fixture(scope="module")
def file(run):
    export(ExportConfig(run, out=run.parent / "cluster.npz", episodes=3))
    return run.parent / "cluster.npz"


def played(scenario="cluster-small", num_envs=3, steps=40, seed=5):
    """A batch in the middle of its episodes."""
    batch = ClusterBatch(load_scenario(scenario), num_envs)
    batch.seed(seed)
    batch.reset()
    policy = fresh(policy_for("popularity", batch.scenario))
    for _ in range(steps):
        batch.step(policy(batch.view))
    return batch


def weights(seed=0):
    """Settings and arrays of a network at random."""
    generator, widths = np.random.default_rng(seed), (len(CLUSTER_COLUMNS), 8, 6, len(OUTPUTS))
    arrays = {}
    for k in range(3):
        arrays[f"weight_{k}"] = generator.normal(size=widths[k : k + 2]).astype(np.float32)
        arrays[f"bias_{k}"] = generator.normal(size=widths[k + 1]).astype(np.float32)
    for name in ("agent_1", "gpu_1"):
        arrays[name] = generator.normal(size=widths[1:3]).astype(np.float32)
    return {
        "layers": list(widths),
        "activation": "tanh",
        "actions": placed_corrections(load_scenario("cluster-small"), 3.0).settings,
    }, arrays


def test_the_rows_are_those_of_the_observation_by_name():
    batch = played()
    rows, seen = instance_rows(batch.view), batch.observation
    residents = batch.view.resident.sum(axis=2)

    def spread(values):
        return np.broadcast_to(values, rows.shape[:3])

    for column, name in enumerate(CLUSTER_COLUMNS):
        part, feature = name.split(".")
        if name == "agent.instances":
            expected = spread((residents / (1 + residents))[:, :, None])
        elif feature == "work":
            agents, calls = batch.view.agents, batch.view.calls
            of_gpu = (calls / agents.throughput[:, :, None] / batch.view.speed).sum(axis=1)[:, None]
            of_all = (agents.queue / agents.throughput).sum(axis=1)[:, None, None]
            work = of_gpu if part == "gpu" else of_all
            expected = spread(work / (1 + work))
        elif part == "agent":
            expected = spread(seen["agents"][:, :, None, AGENT_FEATURES.index(feature)])
        elif part == "gpu":
            expected = spread(seen["gpus"][:, None, :, GPU_FEATURES.index(feature)])
        else:
            expected = seen["instances"][..., INSTANCE_FEATURES.index(feature)]
        np.testing.assert_allclose(rows[..., column], expected, rtol=1e-6, atol=1e-7, err_msg=name)
    assert rows.min() >= 0 and rows.max() <= 1 and rows.std(axis=(0, 1, 2)).astype(bool).sum() > 15


def test_the_network_is_equivariant_to_the_order_of_agents_and_of_gpus():
    network = ClusterDecider(*weights(), CLUSTER_COLUMNS)._network
    rows = instance_rows(played().view)
    generator = np.random.default_rng(1)
    agents, gpus = generator.permutation(8), generator.permutation(4)
    outputs = network(rows)
    np.testing.assert_allclose(
        network(np.ascontiguousarray(rows[:, agents][:, :, gpus])), outputs[:, agents][:, :, gpus], rtol=1e-12
    )
    assert outputs.std() > 0.1
    # An environment is decided alike alone and in a batch, bit for bit.
    np.testing.assert_array_equal(network(rows[1:2]), outputs[1:2])


def test_exploration_is_common_to_all_to_an_agent_and_to_a_gpu():
    torch.manual_seed(0)
    agents, gpus, std = 3, 2, 0.5
    noise = CommonNoise(agents, gpus, 1)
    means = torch.randn(1, agents * gpus).expand(50_000, -1)
    noise.proba_distribution(means, noise.initial_log_std(std, 1))
    # The mean, then its agents' and its GPUs' with half the standard deviation, what is left with a quarter.
    i, k = np.indices((agents, gpus)).reshape(2, -1)
    same_agent, same_gpu = (np.equal.outer(each, each).astype(float) for each in (i, k))
    of_agents, of_gpus = same_agent / gpus, same_gpu / agents
    mean = np.full((6, 6), 1 / 6)
    left = np.eye(6) - of_agents - of_gpus + mean
    parts = mean + (of_agents - mean) / 2 / 4 + (of_gpus - mean) / 4 + left / 2 / 16
    covariance = std**2 * 6 * parts
    np.testing.assert_allclose(np.diag(covariance), std**2 * (1 + 2 / 4 + 1 / 16))
    actions = noise.sample()
    np.testing.assert_allclose(np.cov(actions.numpy().T), covariance, atol=0.02)
    exact = torch.distributions.MultivariateNormal(means[0].double(), torch.as_tensor(covariance))
    torch.testing.assert_close(
        noise.log_prob(actions).double(), exact.log_prob(actions.double()), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(noise.mode(), means, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("kind", "period_s"),
    [("ppo-cluster", 1.0), ("linear-cluster", 1.0), ("ppo-cluster-hierarchical", 5.0)],
)
def test_untrained_it_is_the_baseline_that_it_corrects(kind, period_s):
    scenario = load_scenario("cluster-small", steps=30)
    config = with_defaults(TrainConfig(**{**SHORT, "allocator": kind}), scenario.key)
    model, transform = make_learner(config, scenario)
    batch = played(num_envs=2)
    policy = replace(policy_for("demand", batch.scenario), period_s=period_s)
    for _ in range(8):
        rows = torch.as_tensor(instance_rows(batch.view))
        with torch.no_grad():
            actions = model.policy.most_likely(rows).numpy()
        shares = transform(batch.view, lambda actions=actions: actions)
        np.testing.assert_array_equal(shares, policy(batch.view))
        batch.step(shares)


def test_the_exported_file_decides_as_the_run_on_any_cluster(run, file):
    scenario = load_scenario("cluster-small", steps=15)
    assert ClusterAllocator.load(file).manifest.validation.largest_difference < 1e-6
    by_run, by_file, by_base = (
        evaluate("a", policy, scenario, 3, 7).objective
        for policy in (
            load_policy(str(run), scenario),
            load_policy(str(file), scenario),
            policy_for("demand", scenario),
        )
    )
    np.testing.assert_array_equal(by_run, by_file)
    assert (by_run != by_base).any()
    batch = played("cluster-fleet", num_envs=1, steps=3)
    shares = load_policy(str(file), batch.scenario)(batch.view)
    assert shares.shape == (1, 64, 32) and (shares.sum(axis=1) <= 1 + 1e-9).all() and shares.sum() > 1


def test_what_is_not_a_number_is_decided_by_algorithm_1_and_counted(file, caplog):
    allocator, batch = ClusterAllocator.load(file), played(num_envs=2)
    sound = allocator.fresh()(batch.view)
    broken = batch.view._replace(calls=batch.view.calls.copy())
    broken.calls[1, 0, 0] = np.nan
    shares = allocator(broken)
    np.testing.assert_array_equal(shares[0], sound[0])
    assert np.isfinite(shares).all() and (shares[1] > 0).sum() == (batch.view.resident[1] > 0).sum()
    assert sum(allocator.fallbacks.values()) == 1 and allocator.decisions == 2
    assert "the input is not finite: decided by Algorithm 1" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"), [("queue", np.inf), ("dt", np.nan), ("dt", 0.0), ("gpus", np.inf)]
)
def test_a_view_without_end_or_time_is_decided_by_the_fallback(name, value, file):
    allocator, batch = ClusterAllocator.load(file), played(num_envs=2)
    seen = batch.view.agents
    if name == "queue":
        value = np.where(np.arange(seen.queue.shape[1]) == 1, value, seen.queue)
    broken = batch.view._replace(agents=seen._replace(**{name: value}))
    for _ in range(2):
        shares = allocator(broken)
        assert np.isfinite(shares).all() and (shares.sum(axis=1) <= 1 + 1e-9).all() and shares.sum() > 0
    assert sum(allocator.fallbacks.values()) == allocator.decisions == 4


def test_what_has_been_idle_for_ever_is_decided_for(file):
    allocator, batch = ClusterAllocator.load(file), played(num_envs=1)
    allocator(batch.view._replace(idle=np.full_like(batch.view.idle, np.inf)))
    assert not allocator.fallbacks


def test_kinds_of_the_other_kind_of_scenario_are_refused(run, file):
    with pytest.raises(AllocatorError, match="read it with gpualloc_env"):
        Allocator.load(file)
    with pytest.raises(AgentsError, match="was trained for clusters, and scenario 'serverless' has one pool"):
        load_policy(str(file), load_scenario("serverless"))
    with pytest.raises(AgentsError, match="was trained for clusters"):
        load_policy(str(run), load_scenario("serverless"))
    for scenario, allocator, remedy in (
        ("cluster-small", "ppo-residual", "--allocator ppo-cluster or ppo-cluster-hierarchical"),
        ("serverless", "ppo-cluster", "--allocator ppo or ppo-shared or ppo-residual"),
    ):
        config = with_defaults(TrainConfig(scenario=scenario, allocator=allocator), scenario)
        with pytest.raises(ValueError, match=remedy):
            check(config, load_scenario(scenario))
    with pytest.raises(ValueError, match="must end in"):
        export(ExportConfig(run, out=run.parent / "cluster.onnx", episodes=1))


@pytest.mark.slow
def test_a_run_goes_on_from_its_checkpoint_to_the_same_weights(tmp_path):
    short = {**SHORT, "steps": 20, "total_steps": 768, "validation_episodes": 2, "checkpoint_every": 256}
    train(TrainConfig(**short, critic_updates=1, out=tmp_path / "whole"))
    cut = TrainConfig(**short, critic_updates=1, out=tmp_path / "cut")
    interrupt(cut, checkpoints=1)
    train(cut)
    scenario = load_scenario("cluster-small", steps=20)
    whole, part = (load_policy(str(tmp_path / name), scenario) for name in ("whole", "cut"))
    for one, other in zip(whole._parts[1].values(), part._parts[1].values(), strict=True):
        np.testing.assert_array_equal(one, other)

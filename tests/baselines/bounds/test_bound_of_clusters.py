"""The lower bound of clusters: below every policy, and how far below the best of all schedules."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from support.bounds import assert_no_policy_undercuts
from support.call_episodes import server, tasks_of
from support.cluster_episodes import clusters, replayed_cluster

from baselines import CLUSTER_POLICIES, policy_for
from baselines.bounds.calls import CallEpisode, alone, at_speed, bound_of_calls, prices_of
from gpualloc_env import Node, Objective, Platform, Scenario, Traffic, load_scenario
from gpualloc_env.metrics import objectives
from training.evaluation.evaluate import rollout


def everywhere(view):
    return np.full(view.share.shape, 1 / view.share.shape[-2])


def nothing(view):
    return np.zeros(view.share.shape)


def by_chance(view):
    rng = np.random.default_rng(int(1e6 * view.calls.sum()) % 2**32)
    asked = rng.random(view.share.shape) * (rng.random(view.share.shape) < 0.4)
    return asked / np.maximum(1.0, asked.sum(axis=-2, keepdims=True))


EXTREMES = {"everywhere": everywhere, "nothing": nothing, "by-chance": by_chance}


def episode_of(batch):
    agents = batch.agents[0].copy()
    return CallEpisode(batch.tasks(0), prices_of(batch.scenario, batch.world.episode[0], agents), agents)


def policies_on(scenario):
    return {name: policy_for(name, scenario) for name in (*CLUSTER_POLICIES, "lru+autoscaler")} | EXTREMES


@pytest.mark.parametrize("name", ["cluster-small", "cluster-nodes"])
def test_no_policy_undercuts_the_bound(name):
    scenario = load_scenario(name, steps=60)
    assert_no_policy_undercuts(policies_on(scenario), scenario, 4, 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("load", [None, 0.05, 1.5])
@pytest.mark.parametrize("name", ["cluster-small", "cluster-nodes", "cluster-fleet"])
def test_no_policy_undercuts_the_bound_on_many_seeds(name, load):
    scenario = load_scenario(name, load=load, steps=120)
    assert_no_policy_undercuts(policies_on(scenario), scenario, 10, 0)


@settings(max_examples=40, deadline=None)
@given(clusters())
def test_no_actions_undercut_the_bound_of_any_cluster(drawn):
    scenario, tasks, actions = drawn
    weights = Objective(latency=0.5, cost=0.3, throughput=0.4, task=0.5)
    scenario = scenario.model_copy(update={"objective": weights})
    batch = replayed_cluster(scenario, tasks)
    bound = bound_of_calls(scenario, episode_of(batch))
    for action in actions:
        batch.step(action[None])
    assert bound <= objectives(batch)[0] + 1e-12


def two_gpus(seed):
    """Two agents, two GPUs of which each holds one or both of them, and some calls in six steps."""
    random = np.random.default_rng(seed)
    agents = tuple(
        server(
            name,
            iteration_s=random.uniform(0.05, 0.2),
            iteration_s_per_call=random.uniform(0, 0.05),
            prefill_s_per_token=random.uniform(0.01, 0.1),
            max_batch=3,
            model_mb=50,
            kappa=random.choice([None, 0.5]),
        )
        for name in ("one", "two")
    )
    nodes = tuple(
        Node(gpus=1, memory_mb=random.choice([60.0, 120.0]), speed=random.choice([0.5, 1.0]))
        for _ in range(2)
    )
    scenario = Scenario(
        name="two-gpus",
        service="requests",
        agents=agents,
        nodes=nodes,
        platform=Platform(container_start_s=0.5),
        objective=Objective(latency=1.0, cost=0.3, throughput=0.2),
        traffic=Traffic(rates_rps=(1.0, 0.0)),
        steps=6,
    )
    times = np.sort(random.uniform(0, 4, random.integers(2, 7)))
    calls = [(t, [(random.integers(2), 0, *random.integers((1, 1), (9, 13)), 0.0)]) for t in times]
    return scenario, tasks_of(*calls)


def best_of_all_schedules(scenario, tasks):
    """The least J of all schedules of three phases whose shares are multiples of a half of each GPU."""
    columns = [each for each in itertools.product((0, 0.5, 1), repeat=2) if sum(each) <= 1]
    actions = np.array([np.transpose(pair) for pair in itertools.product(columns, repeat=2)])
    schedules = np.array(list(itertools.product(range(len(actions)), repeat=3)))
    batch = replayed_cluster(scenario, tasks, num_envs=len(schedules), record=False)
    for t in range(scenario.steps):
        batch.step(actions[schedules[:, t // 2]])
    return objectives(batch).min(), bound_of_calls(scenario, episode_of(batch))


@pytest.mark.slow
def test_how_far_the_bound_is_below_the_best_of_all_schedules():
    found = np.array([best_of_all_schedules(*two_gpus(seed)) for seed in range(30)])
    best, bound = found.T
    assert (bound <= best).all()
    below = 1 - bound / best
    assert (best > 0).all()
    # What `docs/bound.md` says.
    assert (below.min(), below.mean(), below.max()) == pytest.approx((0.026, 0.242, 0.456), abs=5e-4)


def test_a_call_alone_on_the_fastest_gpu_takes_exactly_the_bound():
    # 10 prompt tokens at 0.1 s, then 20 of 0.1 s: 3 s, at speed 2 in 1.5 s, on a GPU that costs nothing.
    agent = server(
        "a",
        prefill_s_per_token=0.1,
        iteration_s=0.08,
        iteration_s_per_call=0.02,
        prompt_tokens=10,
        output_tokens=21,
    )
    scenario = Scenario(
        name="fast-and-slow",
        service="requests",
        agents=(agent,),
        nodes=(Node(gpus=1, memory_mb=1, speed=2.0), Node(gpus=1, memory_mb=1, speed=1.0)),
        objective=Objective(latency=1.0, cost=0.0, throughput=0.0),
        traffic=Traffic(rates_rps=(1.0,)),
        steps=10,
    )
    batch = replayed_cluster(scenario, tasks_of((1.0, [(0, 0, 10, 21, 0)]), (6.0, [(0, 0, 10, 21, 0)])))
    episode = episode_of(batch)
    for _ in range(10):
        batch.step([[[1.0, 0.0]]])
    assert objectives(batch)[0] == pytest.approx(1.5)
    assert bound_of_calls(scenario, episode) == pytest.approx(1.5, rel=1e-6)
    assert alone(scenario, at_speed(episode, 1.0)) == pytest.approx(3.0, rel=1e-6)


@pytest.mark.parametrize(("speeds", "cost"), [((1.0, 1.0, 1.0, 1.0), 5.0), ((2.0, 1.0, 1.0), 0.0)])
def test_overloaded_gpus_take_nearly_the_bound_of_one_as_fast_as_all(speeds, cost):
    agent = server("a", prefill_s_per_token=1.0, prompt_tokens=1)
    scenario = Scenario(
        name="overloaded",
        service="requests",
        agents=(agent,),
        nodes=tuple(Node(gpus=1, memory_mb=1, speed=speed) for speed in speeds),
        objective=Objective(latency=1.0, cost=cost, throughput=0.0),
        traffic=Traffic(law="constant", rates_rps=(8.0,)),
        steps=100,
    )
    batch = rollout(everywhere, scenario, 1, 0, record=False)
    played, episode = objectives(batch)[0], episode_of(batch)
    bound = bound_of_calls(scenario, episode)
    # 8 calls a second come and 4 are served: some 200 wait in the mean, 25 s for each; all GPUs are held.
    assert 0.97 * played < bound <= played == pytest.approx(25 + cost, rel=0.05)
    assert bound > 2 * alone(scenario, at_speed(episode, max(speeds)))

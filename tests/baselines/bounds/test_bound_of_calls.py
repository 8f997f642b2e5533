"""The lower bound for servers of calls: below every policy, and exact where nothing is left out."""

import numpy as np
import pytest
from support.bounds import assert_no_policy_undercuts

from baselines import DEFAULTS, lower_bounds
from baselines.bounds.calls import CallEpisode, alone, fluid, prices_of, speed, token_cost
from gpualloc_env import Agent, Batch, Objective, Platform, Scenario, Traffic, load_scenario
from gpualloc_env.metrics import objectives
from training.evaluation.evaluate import rollout

WAITING = Objective(latency=1.0, cost=0.0, throughput=0.0)


def nothing(view):
    return np.zeros(view.queue.shape)


def by_chance(view):
    rng = np.random.default_rng(int(1e6 * view.queue.sum()) % 2**32)
    return rng.dirichlet(np.full(view.queue.shape[-1], 0.5), view.queue.shape[:-1]) * rng.uniform(0, 1.5)


def only_the_first(view):
    return np.broadcast_to(np.eye(view.queue.shape[-1])[0], view.queue.shape)


POLICIES = {**DEFAULTS, "nothing": nothing, "by-chance": by_chance, "only-the-first": only_the_first}


@pytest.mark.parametrize("name", ["llm", "team", "magentic"])
def test_no_policy_undercuts_the_bound(name):
    assert_no_policy_undercuts(POLICIES, load_scenario(name, steps=60), 4, 10_000)


def test_each_episode_of_calls_at_constant_rates_has_a_bound_of_its_own():
    constant = Traffic(law="constant", rates_rps=(2, 1, 1, 0.3))
    scenario = load_scenario("llm", steps=20).model_copy(update={"traffic": constant})
    # Calls come evenly, and their tokens are drawn.
    assert scenario.varies
    bounds = lower_bounds(scenario, 2, 0, workers=1)
    alone = [lower_bounds(scenario, 1, seed, workers=1)[0] for seed in (0, 1)]
    assert bounds == pytest.approx(alone) and alone[0] != pytest.approx(alone[1])


@pytest.mark.slow
@pytest.mark.parametrize("load", [None, 0.1, 1.5])
@pytest.mark.parametrize("name", ["llm", "team", "magentic"])
def test_no_policy_undercuts_the_bound_on_many_seeds(name, load):
    assert_no_policy_undercuts(POLICIES, load_scenario(name, load=load), 12, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llm", "team"])
@pytest.mark.parametrize(
    "changes",
    [
        {"objective": {"latency": 1.0, "cost": 0.01, "throughput": 2.0, "slo": 1.0, "shortfall": 1.0}},
        {"objective": {"latency": 0.0, "cost": 5.0, "throughput": 0.0, "task": 0.02}},
        {"platform": {"gpus": 4.0, "max_share": 3.0, "slice": 1 / 7}},
        {"platform": {"gpus": 0.5}},
    ],
    ids=str,
)
def test_no_policy_undercuts_the_bound_of_another_objective_or_platform(name, changes):
    scenario = load_scenario(name, steps=120)
    made = {part: getattr(scenario, part).model_copy(update=values) for part, values in changes.items()}
    assert_no_policy_undercuts(POLICIES, scenario.model_copy(update=made), 10, 7)


def one_server(rate, kappa=None, objective=WAITING, **constants):
    agent = (
        Agent(
            name="a",
            model_mb=0,
            prompt_tokens=10,
            output_tokens=1,
            prefill_s_per_token=0.1,
            iteration_s=0.0,
            iteration_s_per_call=0.0,
            kappa=kappa,
        ).model_dump()
        | {"throughput_rps": None}
        | constants
    )
    del agent["throughput_rps"]
    return Scenario(
        name="one",
        service="requests",
        agents=(Agent(**agent),),
        platform=Platform(),
        objective=objective,
        traffic=Traffic(law="constant", rates_rps=(rate,)),
        steps=100,
    )


def episode_of(scenario):
    batch = Batch(scenario, 1)
    batch.seed(0)
    batch.reset()
    agents = batch.agents[0].copy()
    return CallEpisode(batch.tasks(0), prices_of(scenario, batch.world.episode[0], agents), agents)


def test_calls_that_never_meet_take_exactly_the_bound_on_a_whole_gpu():
    # 10 prompt tokens at .1 s and 20 tokens after the first at .08 + .02: 3 s each, one in 10 s.
    scenario = one_server(0.1, kappa=0.5, output_tokens=21, iteration_s=0.08, iteration_s_per_call=0.02)
    played = objectives(rollout(DEFAULTS["static"], scenario, 1, 0, record=False))[0]
    assert alone(scenario, episode_of(scenario)) == pytest.approx(played, rel=1e-6)
    assert played == pytest.approx(3.0, rel=0.1)


def test_an_overloaded_server_of_equal_calls_takes_nearly_the_fluid_bound():
    scenario = one_server(2.0)
    played = objectives(rollout(DEFAULTS["static"], scenario, 1, 0, record=False))[0]
    bound, lonely = fluid(scenario, episode_of(scenario)), alone(scenario, episode_of(scenario))
    # Twice what can be served in 100 s: some 50 calls wait in the mean, 25 s for each of two a second.
    assert bound > 20 * lonely and 0.97 * played < bound <= played == pytest.approx(25, rel=0.05)
    assert lower_bounds(scenario, 1, 0, workers=1)[0] == bound


def test_the_price_of_a_token_is_the_least_of_all_batches_and_shares():
    agents = episode_of(load_scenario("team")).agents
    batch, most = np.array([64, 1, 20, 32]), 1.0
    for rate, gpu in ((np.full(4, 0.1), 0.5), (np.zeros(4), 0.5), (np.array([0.1, 1.0, 0.01, 0.2]), 0.0)):
        found = token_cost(agents, batch, rate, gpu, most)
        share = np.linspace(1e-3, most, 2000)
        for i in range(4):
            b = np.arange(1, batch[i] + 1)[:, None]
            iteration = agents[i]["iteration"] + agents[i]["iteration_per_call"] * b
            least = (iteration / speed(share, agents[i]["kappa"]) * (rate[i] + gpu * share / b)).min()
            assert found[i] == pytest.approx(least, rel=3e-3) and found[i] <= least * (1 + 1e-12)


def test_a_task_that_cannot_be_finished_stays_to_the_end():
    # A call of 3 s in an episode of 100 s; on a quarter of a GPU it takes 12 s, and 9 s are left.
    scenario = one_server(
        0.011, prompt_tokens=30, objective=Objective(latency=0, cost=0, throughput=0, task=1)
    )
    episode = episode_of(scenario)
    assert episode.tasks.time == pytest.approx([1 / 0.011])
    assert alone(scenario, episode) == pytest.approx(3 * 0.01 * episode.prices.task)
    small = scenario.model_copy(update={"platform": Platform(gpus=0.25)})
    left = 100 - 1 / 0.011
    assert alone(small, episode) == pytest.approx(left * 0.01 * episode.prices.task)

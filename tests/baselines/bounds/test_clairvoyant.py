"""Schedules found with knowledge of the future: feasible, better than policies, never below the bound."""

import numpy as np
import pytest

from baselines import POLICIES, PRIVILEGED, Clairvoyant, feasible_schedule, lower_bounds, policy_for
from baselines.bounds import FutureError
from baselines.bounds.clairvoyant import _tracked
from gpualloc_env import Platform, load_scenario
from training.evaluation.evaluate import evaluate

CHANGES = {
    "paper": {"steps": 40},
    "serverless": {"steps": 60},
    "workflow": {"steps": 40},
    "bursty": {"steps": 60},
    "fleet": {"steps": 10},
    "team": {"steps": 40},
}


@pytest.fixture(scope="module", params=CHANGES)
def found(request):
    scenario = load_scenario(request.param, **CHANGES[request.param])
    return scenario, feasible_schedule(scenario, 11, rounds=4)


def test_its_objective_is_what_playing_it_gives(found):
    scenario, schedule = found
    rows = iter(schedule.shares)
    played = evaluate("schedule", lambda view: next(rows)[None], scenario, 1, 11)
    assert played.objective[0] == schedule.objective
    assert played.metrics[0]["cold_starts"] == 0


def test_it_lies_between_the_bound_and_every_policy(found):
    scenario, schedule = found
    assert schedule.lower_bound == lower_bounds(scenario, 1, 11, workers=1)[0] <= schedule.objective
    for name in POLICIES:
        policy = evaluate(name, POLICIES[name], scenario, 1, 11).objective[0]
        assert schedule.objective < policy + 1e-6, name


def test_it_asks_for_no_more_than_the_platform(found):
    _, schedule = found
    assert (schedule.shares >= 0).all() and (schedule.shares.sum(axis=1) <= 1 + 1e-12).all()


def test_the_same_episode_has_the_same_schedule_bit_for_bit():
    scenario = load_scenario("serverless", steps=30)
    once, again = (feasible_schedule(scenario, 5, rounds=3) for _ in range(2))
    assert once.shares.tobytes() == again.shares.tobytes() and once.objective == again.objective


@pytest.mark.parametrize("name", ["serverless", pytest.param("llm", marks=pytest.mark.slow)])
def test_more_rounds_of_search_never_make_it_worse(name):
    scenario = load_scenario(name, steps=80)
    costs = [feasible_schedule(scenario, 3, rounds=rounds).objective for rounds in (0, 2, 8)]
    assert costs[0] >= costs[1] >= costs[2] and costs[0] > costs[2]


def test_it_attains_the_bound_where_nothing_was_relaxed():
    schedule = feasible_schedule(load_scenario("steady", steps=100), 2)
    assert schedule.objective == pytest.approx(schedule.lower_bound, rel=1e-3)


def test_slices_are_rounded_before_they_are_played():
    scenario = load_scenario("steady", steps=30).model_copy(update={"platform": Platform(slice=1 / 7)})
    schedule = feasible_schedule(scenario, 2, rounds=3)
    best = min(evaluate(name, policy_for(name, "steady"), scenario, 1, 2).objective[0] for name in POLICIES)
    assert schedule.lower_bound <= schedule.objective <= best


def test_a_share_follows_its_target_within_the_deadband_and_jumps_where_it_is_far():
    scenario = load_scenario("serverless")
    target = np.array([[[0.5, 0.1], [0.53, 0.1], [0.53, 0.4], [0.53, 0.4]]])
    drifting = _tracked(scenario, target, np.array([np.inf]))[0]
    assert drifting == pytest.approx(np.array([[0.5, 0.1], [0.52, 0.1], [0.53, 0.12], [0.53, 0.14]]))
    jumping = _tracked(scenario, target, np.array([0.1]))[0]
    assert jumping == pytest.approx(np.array([[0.5, 0.1], [0.52, 0.1], [0.53, 0.4], [0.53, 0.4]]))


def test_shares_that_rise_wait_for_those_that_fall():
    scenario = load_scenario("serverless")
    target = np.array([[[0.9, 0.1], [0.1, 0.9]]])
    assert _tracked(scenario, target, np.array([np.inf]))[0, 1] == pytest.approx([0.88, 0.12])
    full = np.array([[[0.6, 0.4], [0.6, 0.41]]])
    assert _tracked(scenario, full, np.array([np.inf]))[0, 1] == pytest.approx([0.6, 0.4])


def test_the_privileged_policy_replays_its_schedules_in_the_rollout_loop():
    scenario = load_scenario("serverless", steps=20)
    policy = PRIVILEGED["clairvoyant"](scenario, 2, 40)
    played = evaluate("clairvoyant", policy, scenario, 2, 40).objective
    assert played.tolist() == [schedule.objective for schedule in policy.schedules]
    assert played.tolist() == [feasible_schedule(scenario, seed).objective for seed in (40, 41)]
    assert evaluate("clairvoyant", policy, scenario, 2, 40).objective.tolist() == played.tolist()
    with pytest.raises(ValueError, match=r"this schedule is for 2 episodes of 4 agents, got .* \(3, 4\)"):
        evaluate("clairvoyant", policy, scenario, 3, 40)


def test_none_is_searched_in_a_cluster():
    with pytest.raises(FutureError, match="'cluster-small' is a cluster, and a schedule"):
        feasible_schedule(load_scenario("cluster-small"), 1)


def test_privileged_policies_are_none_of_the_baselines():
    assert PRIVILEGED == {"clairvoyant": Clairvoyant} and not set(PRIVILEGED) & set(POLICIES)

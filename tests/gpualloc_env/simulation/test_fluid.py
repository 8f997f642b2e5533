from typing import NamedTuple

import numpy as np
import pytest
from support.episodes import started

from gpualloc_env import Agent, Objective, Platform, Scenario, Traffic
from gpualloc_env.simulation.state import OUTCOME, TERMS

CHANGING_FIELDS = ("queue", "inflow", "rate", "share", "idle", "loading", "oldest_age")


class Step(NamedTuple):
    """What one step did, as lists, with the view after it."""

    arrivals: list
    queue: list
    share: list
    served: list
    capacity: list
    backlog: list
    agent_reward: list
    delay: list
    late: list
    reallocated: list
    cold_start: list
    terms: dict
    reward: float
    view: dict


def play(
    shares,
    arrivals,
    *,
    dt=1.0,
    warm=True,
    routing=None,
    base_throughput=10.0,
    model_mb=0.0,
    kappa=None,
    slo_s=2.0,
    priority=1,
    min_share=0.0,
    objective=None,
    **platform,
):
    """Play rows of shares, (T, N), against rows of arrivals, (T, N) or fewer; then nothing arrives.

    Parameters of agents are one value for all or a list. The first row must not be empty:
    it also sets the mean rates of the objective.
    """
    count = len(shares[0])

    def each(value):
        return value if isinstance(value, list) else [value] * count

    parameters = zip(
        each(base_throughput),
        each(model_mb),
        each(kappa),
        each(slo_s),
        each(priority),
        each(min_share),
        strict=True,
    )
    agents = tuple(
        Agent(
            name=f"agent-{i}",
            throughput_rps=base,
            model_mb=size,
            kappa=curve,
            slo_s=slo,
            priority=rank,
            min_share=least,
        )
        for i, (base, size, curve, slo, rank, least) in enumerate(parameters)
    )
    scenario = Scenario(
        name="by-hand",
        agents=agents,
        platform=Platform(**platform),
        objective=Objective(**(objective or {})),
        traffic=Traffic(law="constant", rates_rps=tuple(x / dt for x in arrivals[0])),
        routing=routing,
        steps=len(shares),
        dt=dt,
        warm=warm,
    )
    batch = started(scenario, record=True)
    batch.arrivals[1:] = 0.0
    for t, row in enumerate(arrivals):
        batch.arrivals[t, 0] = row
    steps = []
    for t, row in enumerate(shares):
        batch.step(np.array([row]))
        recorded = {name: batch.history[0, t][name].tolist() for name in OUTCOME.names}
        terms = {name: float(batch.worth[0][name]) for name in TERMS}
        view = {name: getattr(batch.view, name)[0].tolist() for name in CHANGING_FIELDS}
        steps.append(Step(**recorded, terms=terms, reward=float(batch.reward[0]), view=view))
    return steps


def test_half_a_gpu_serves_half_the_base_throughput():
    (step,) = play([[0.5]], [[3.0]], base_throughput=4.0)
    assert step.capacity == [2.0] and step.served == [2.0] and step.queue == [1.0]


def test_an_agent_serves_no_more_than_waits():
    (step,) = play([[1.0]], [[3.0]], base_throughput=4.0)
    assert step.capacity == [4.0] and step.served == [3.0] and step.queue == [0.0]


def test_backlog_of_a_queue_that_empties_is_a_triangle():
    # 4 requests at 8 per second are gone after half a second: 4 × 0.5 / 2.
    (step,) = play([[1.0]], [[4.0]], base_throughput=8.0)
    assert step.backlog == [1.0]


def test_backlog_of_a_queue_that_lasts_is_a_trapezoid():
    (step,) = play([[1.0]], [[10.0]], base_throughput=4.0)
    assert step.backlog == [8.0] and step.queue == [6.0]


def test_backlog_is_a_mean_over_the_step_whatever_its_length():
    (step,) = play([[1.0]], [[10.0]], base_throughput=4.0, dt=0.5)
    assert step.backlog == [9.0] and step.served == [2.0]


def test_backlog_of_an_agent_without_a_share_is_its_queue():
    (step,) = play([[0.0]], [[7.0]])
    assert step.backlog == [7.0] and step.served == [0.0] and step.capacity == [0.0]


def test_saturating_throughput_is_concave_and_meets_linear_at_nothing_and_at_a_whole_gpu():
    (step,) = play([[0.5, 0.0, 1.0]], [[50.0] * 3], base_throughput=12.0, kappa=[0.5, 0.5, 0.5], gpus=2.0)
    # u is a fraction of two GPUs and sums to 1.5: scaled to 2/3 GPU, 0 and 1 GPU (the maximum).
    assert step.share == pytest.approx([2 / 3, 0, 1])
    assert step.capacity == pytest.approx([12 * (2 / 3) * 1.5 / (2 / 3 + 0.5), 0, 12])


def test_shares_that_ask_for_too_much_are_scaled():
    (step,) = play([[1.0, 1.0, 0.5]], [[1.0] * 3])
    assert step.share == [0.4, 0.4, 0.2]


def test_shares_that_ask_for_less_leave_the_rest_idle():
    (step,) = play([[0.25, 0.5]], [[1.0] * 2])
    assert step.share == [0.25, 0.5] and step.terms["cost"] == 0.75


def test_shares_outside_the_unit_interval_are_clipped_before_scaling():
    (step,) = play([[-1.0, 7.0, 1.0]], [[1.0] * 3])
    assert step.share == [0.0, 0.5, 0.5]


def test_fractions_are_of_all_gpus_and_one_agent_holds_at_most_max_share():
    (step,) = play([[0.9, 0.1]], [[1.0] * 2], gpus=8.0)
    assert step.share == pytest.approx([1.0, 0.8])
    (step,) = play([[0.9, 0.1]], [[1.0] * 2], gpus=8.0, max_share=4.0)
    assert step.share == pytest.approx([4.0, 0.8])


@pytest.mark.parametrize(
    ("asked", "sevenths"), [(0.14, 0), (0.15, 1), (0.5, 3), (np.float32(3 / 7), 3), (0.999, 6), (1, 7)]
)
def test_slices_round_down_to_sevenths(asked, sevenths):
    (step,) = play([[float(asked)]], [[1.0]], slice=1 / 7)
    assert step.share == pytest.approx([sevenths / 7], abs=1e-12)


def test_a_changed_share_starts_a_tenth_of_a_second_late_and_does_not_slow_down():
    _, step = play([[0.5], [1.0]], [[5.0], [20.0]], reallocation_s=0.1)
    assert step.delay == [0.1] and step.capacity == [9.0] and step.queue == [11.0]
    # 20 wait for 0.1 s, then 20 fall to 11 in 0.9 s.
    assert step.backlog == pytest.approx([20 * 0.1 + 15.5 * 0.9])


def test_the_first_share_of_an_episode_is_free():
    (step,) = play([[1.0]], [[20.0]], reallocation_s=0.1)
    assert step.delay == [0.0] and step.reallocated == [0.0]


def test_a_change_within_the_deadband_is_free_and_one_beyond_it_is_not():
    shares = [[0.50], [0.52], [0.54], [0.57], [0.57]]
    steps = play(shares, [[1.0]], reallocation_s=0.1, deadband=0.02)
    assert [step.reallocated[0] for step in steps] == [0, 0, 0, 1, 0]


def test_giving_a_share_up_is_free_and_taking_it_back_is_not():
    steps = play([[0.5], [0.0], [0.5]], [[1.0]], reallocation_s=0.1, deadband=0.02)
    assert [step.delay[0] for step in steps] == [0, 0, 0.1]


def test_a_reallocation_longer_than_the_step_costs_the_whole_step():
    _, step = play([[0.5], [1.0]], [[1.0], [2.0]], reallocation_s=3.0)
    assert step.delay == [1.0] and step.capacity == [0.0] and step.backlog == [2.0]


def test_a_cold_start_takes_two_seconds_and_one_for_each_gigabyte():
    steps = play(
        [[1.0]] * 5,
        [[100.0]],
        warm=False,
        model_mb=1500.0,
        container_start_s=2.0,
        load_mb_per_s=1000.0,
    )
    # 3.5 s: three steps without service, half a step, a whole one; billed from the first.
    assert [step.served[0] for step in steps] == [0, 0, 0, 5, 10]
    assert [step.view["loading"][0] for step in steps] == [2.5, 1.5, 0.5, 0, 0]
    assert [step.terms["cost"] for step in steps] == [1] * 5
    assert [step.cold_start[0] for step in steps] == [1, 0, 0, 0, 0]


def test_loading_waits_for_a_share_and_keeps_its_progress_meanwhile():
    shares = [[1.0], [0.0], [0.0], [1.0], [1.0]]
    steps = play(shares, [[100.0]], warm=False, container_start_s=1.5)
    assert [step.view["loading"][0] for step in steps] == [0.5, 0.5, 0.5, 0, 0]
    assert [step.served[0] for step in steps] == [0, 0, 0, 5, 10]


@pytest.mark.parametrize(
    ("dt", "keep_alive_s"),
    [(0.1, 10), (0.25, 10), (1, 10), pytest.param(0.1, 3600, marks=pytest.mark.slow), (0.7, 7000)],
)
def test_keep_alive_unloads_at_exactly_its_end(dt, keep_alive_s):
    idle = round(keep_alive_s / dt)
    steps = play([[0.0]] * idle, [[1.0]], dt=dt, keep_alive_s=keep_alive_s, container_start_s=2.0)
    loading = [step.view["loading"][0] for step in steps]
    assert loading[:-1] == [0] * (idle - 1) and loading[-1] == 2


def test_a_share_one_step_before_the_keep_alive_ends_saves_the_model():
    shares = [[0.0]] * 9 + [[0.01]] + [[0.0]] * 9
    steps = play(shares, [[1.0]], keep_alive_s=10.0, container_start_s=2.0)
    assert [step.view["loading"][0] for step in steps] == [0] * 19
    assert steps[8].view["idle"] == [9] and steps[9].view["idle"] == [0]


def test_a_cold_start_and_a_reallocation_add_up():
    shares = [[0.0], [0.0], [1.0], [1.0], [1.0]]
    steps = play(shares, [[100.0]], keep_alive_s=2.0, container_start_s=1.5, reallocation_s=0.1)
    assert [step.delay[0] for step in steps] == pytest.approx([0, 0, 1, 0.5, 0])
    assert [step.cold_start[0] for step in steps] == [0, 0, 1, 0, 0]


def test_finished_work_becomes_work_of_the_next_agent_one_step_later():
    routing = ((0.0, 0.5), (0.0, 0.0))
    first, second, third = play([[0.5, 0.5]] * 3, [[4.0, 0.0]], routing=routing)
    assert first.served == [4.0, 0.0] and first.view["inflow"] == [0.0, 2.0]
    assert second.arrivals == [0.0, 0.0] and second.served == [0.0, 2.0]
    assert third.served == [0.0, 0.0] and third.queue == [0.0, 0.0]


def test_mean_rates_follow_the_traffic_equations():
    # Each task visits the coordinator 1 / (1 − 0.5) = 2 times, the specialist once.
    agents = tuple(Agent(name=name, model_mb=0, throughput_rps=10) for name in ("coordinator", "specialist"))
    scenario = Scenario(
        name="loop",
        agents=agents,
        routing=((0.0, 0.5), (1.0, 0.0)),
        traffic=Traffic(law="constant", rates_rps=(3.0, 0.0)),
    )
    assert started(scenario).state["mean_rate"][0] == pytest.approx([6, 3])


def test_requests_pass_their_objective_once_and_count_as_late_then():
    # 30 wait; 10 leave in each second. The objective of 2 s ends with the second step.
    steps = play([[1.0]] * 4, [[30.0]], slo_s=2.0)
    assert [step.late[0] for step in steps] == [0, 10, 0, 0]


def test_an_objective_within_a_step_counts_what_is_left_at_that_moment():
    steps = play([[1.0]] * 3, [[30.0]], slo_s=1.5)
    assert [step.late[0] for step in steps] == [0, 15, 0]


def test_a_delay_makes_requests_late():
    steps = play([[0.5], [1.0]], [[5.0], [8.0]], slo_s=0.5, reallocation_s=0.2)
    # Of the second step's 8, three leave between 0.2 s and 0.5 s.
    assert steps[1].late == pytest.approx([5])


def test_work_ahead_in_the_queue_makes_requests_late():
    steps = play([[0.0], [1.0], [1.0]], [[10.0], [4.0], [0.0]], slo_s=1.0)
    assert [step.late[0] for step in steps] == [10, 4, 0]


def test_an_objective_shorter_than_any_clock_makes_every_request_late():
    steps = play([[1.0], [1.0]], [[4.0], [4.0]], slo_s=1e-10)
    assert [step.late[0] for step in steps] == pytest.approx([4, 4])


def test_the_age_of_the_oldest_request_grows_until_it_leaves():
    steps = play([[0.0], [0.0], [1.0], [1.0]], [[10.0], [10.0]])
    assert [step.view["oldest_age"][0] for step in steps] == [1, 2, 2, 0]


def test_the_smoothed_rate_of_constant_traffic_is_right_from_the_first_step():
    steps = play([[1.0]] * 5, [[3.0]] * 5, dt=0.5)
    assert [step.view["rate"][0] for step in steps[:4]] == pytest.approx([6] * 4)


def test_the_smoothed_rate_forgets_with_a_time_constant_of_ten_seconds():
    # After 100 idle steps of 0.1 s the weight of the first row is e^−1 of the newest one's.
    steps = play([[1.0]] * 100, [[1.0]], dt=0.1)
    weights = np.exp(-np.arange(101) / 100)
    assert steps[-1].view["rate"][0] == pytest.approx(10 * weights[-1] / weights.sum())


def test_reward_terms_by_hand():
    (step,) = play(
        [[0.5, 0.25]],
        [[10.0, 2.0]],
        priority=[1, 2],
        min_share=[0.6, 0.2],
        slo_s=[1.0, 5.0],
        objective={"latency": 1, "cost": 2, "throughput": 3, "slo": 4, "shortfall": 5},
    )
    # Agent 0: 10 fall to 5, mean 7.5, 5 late. Agent 1: 2 leave at 2.5 per second, mean 2²/2/2.5 = 0.8.
    assert step.terms["latency"] == pytest.approx((7.5 + 0.4) / (10 + 1))
    assert step.terms["cost"] == pytest.approx(0.75)
    assert step.terms["throughput"] == pytest.approx(7 / 12)
    assert step.terms["slo"] == pytest.approx(5 / 11)
    assert step.terms["shortfall"] == pytest.approx(0.1 / 0.8)
    total = 7.9 / 11 + 2 * 0.75 - 3 * 7 / 12 + 4 * 5 / 11 + 5 * 0.1 / 0.8
    assert step.reward == pytest.approx(-total)
    first = 7.5 / 11 + 2 * 0.5 - 3 * 5 / 12 + 4 * 5 / 11 + 5 * 0.1 / 0.8
    assert step.agent_reward == pytest.approx([-first, first - total])


def test_shortfall_counts_only_agents_with_work():
    (step,) = play([[0.0, 0.0]], [[1.0, 0.0]], min_share=[0.2, 0.7])
    assert step.terms["shortfall"] == 1.0


def test_default_weights_are_those_of_the_design():
    weights = Objective().model_dump()
    assert weights == {
        "latency": 1.0,
        "cost": 0.2,
        "throughput": 0.2,
        "slo": 0.0,
        "shortfall": 0.0,
        "task": 0.0,
    }

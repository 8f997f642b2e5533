"""The clairvoyant bound: against hand calculation, exhaustive search, tangents and every policy."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from baselines import POLICIES, lower_bounds
from baselines.bounds.bound import bound, relaxed
from baselines.bounds.drift import drifting_shares
from baselines.bounds.inner_linearisation import solve
from baselines.bounds.programme import best_shares, dual_value, serving_gain
from gpualloc_env import SCENARIOS, Agent, Batch, Objective, Platform, Scenario, Traffic, load_scenario

STEPS = {"fleet": 20, "paper-spike": 200, "trace": None}
ALL_TERMS = {"latency": 1.0, "cost": 0.3, "throughput": 0.4, "slo": 0.7, "shortfall": 0.6}


def started(scenario, episodes, seed=0):
    batch = Batch(scenario, episodes, record=True)
    batch.seed(seed)
    batch.reset()
    return batch


def episode(batch, b=0):
    return batch.arrivals[:, b], batch.state[b]["mean_rate"].copy(), batch.agents[b]


def played(batch, policy):
    for _ in range(batch.scenario.steps):
        batch.step(policy(batch.view))
    return -batch.totals["reward"] / batch.scenario.steps


def replayed(scenario, schedule, seed=0):
    batch = started(scenario, 1, seed)
    rows = iter(schedule)
    return played(batch, lambda view: next(rows)[None])[0]


def small(kappas=(None, None), steps=4, **changes):
    """Two agents of 10 and 5 requests/s that share a GPU, the first twice as important."""
    agents = tuple(
        Agent(name=f"agent-{i}", model_mb=0, throughput_rps=(10, 5)[i], priority=i + 1, kappa=kappas[i])
        for i in range(2)
    )
    fields = {"objective": Objective(cost=0, throughput=0), "traffic": Traffic(rates_rps=(6, 3)), **changes}
    return Scenario(name="small", agents=agents, steps=steps, **fields)


def greedy(view):
    """All to the agent whose queue costs most."""
    worth = view.queue / view.priority
    return (worth == worth.max(axis=-1, keepdims=True)).astype(float)


def one_step(requests, rate, **objective):
    agent = Agent(name="only", model_mb=0, throughput_rps=rate)
    traffic = Traffic(law="constant", rates_rps=(requests,))
    scenario = Scenario(
        name="one", agents=(agent,), traffic=traffic, steps=1, objective=Objective(**objective)
    )
    return bound(scenario, *episode(started(scenario, 1)))


def test_a_single_step_by_hand():
    # 4 requests at 8 per second: a mean backlog of 4²/(2·8) = 1 request, of 4 per second: 0.25 s.
    assert one_step(4, 8, cost=0, throughput=0).objective == pytest.approx(0.25, abs=1e-6)
    # All four are served of four: a credit of 1.
    assert one_step(4, 8, cost=0, throughput=1).objective == pytest.approx(-0.75, abs=1e-6)
    # Half a GPU serves them in a whole step: 0.5 s, and costs 0.5.
    assert one_step(4, 8, cost=1, throughput=0).objective == pytest.approx(1.0, abs=1e-6)


def test_its_shares_are_the_optimum_where_that_can_be_checked_by_hand():
    # 1/(4 g) + g/4 has its minimum at a whole GPU.
    assert one_step(4, 8, cost=0.05, throughput=0).shares == pytest.approx(np.ones((1, 1)), abs=1e-3)


@pytest.mark.parametrize("name", [name for name, each in SCENARIOS.items() if each.service == "fluid"])
def test_no_policy_undercuts_the_bound(name, scenario_arguments):
    scenario = load_scenario(**scenario_arguments[name], steps=STEPS.get(name, 100))
    seeds = 2
    least = lower_bounds(scenario, seeds, 50, workers=1)
    generator = np.random.default_rng(3)
    count = len(scenario.agents)
    policies = {
        **POLICIES,
        "greedy": greedy,
        "random": lambda view: generator.dirichlet(np.ones(count), seeds),
        "sparing": lambda view: 0.5 * generator.dirichlet(np.ones(count), seeds),
        "nothing": lambda view: np.zeros((seeds, count)),
        "skewed": lambda view: np.tile(np.arange(1, count + 1) / (count * (count + 1) / 2), (seeds, 1)),
    }
    assert np.isfinite(least).all()
    for label, policy in policies.items():
        assert (played(started(scenario, seeds, 50), policy) >= least).all(), label


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": ALL_TERMS},
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                {"dt": 0.1},
                {"dt": 2.5},
                {"load": 3.0},
                {"objective": {"latency": 0.0, "throughput": 2.0}},
                {"objective": {"latency": 0.0, "cost": 0.0, "throughput": 0.0}},
            )
        ),
    ],
)
@pytest.mark.parametrize("name", ["serverless", "workflow"])
def test_no_policy_undercuts_it_in_other_settings(name, changes):
    scenario = load_scenario(name, steps=60, **changes)
    least = lower_bounds(scenario, 2, 7, workers=1)
    for label, policy in {**POLICIES, "greedy": greedy}.items():
        assert (played(started(scenario, 2, 7), policy) >= least).all(), label


@pytest.mark.parametrize(
    "platform",
    [
        Platform(gpus=3, max_share=2),
        Platform(gpus=0.5),
        Platform(slice=1 / 7, gpus=2),
        Platform(reallocation_s=5, container_start_s=3, keep_alive_s=1),
    ],
)
@pytest.mark.parametrize("warm", [True, False])
def test_no_policy_undercuts_it_on_other_platforms(platform, warm):
    scenario = load_scenario("serverless", steps=60).model_copy(update={"platform": platform, "warm": warm})
    least = lower_bounds(scenario, 2, 7, workers=1)
    for label, policy in {**POLICIES, "greedy": greedy}.items():
        assert (played(started(scenario, 2, 7), policy) >= least).all(), label


@pytest.mark.parametrize("kappas", [(None, None), (0.5, 2.0), (None, 1.0)])
def test_exhaustive_search_finds_nothing_better_and_comes_close(kappas):
    # Nothing is gained by leaving capacity idle, so one share tells the other.
    scenario = small(kappas)
    grid = np.linspace(0, 1, 13)
    schedules = np.array(list(itertools.product(grid, repeat=scenario.steps)))
    batch = Batch(scenario, len(schedules))
    for k in range(len(schedules)):
        batch.seed(4 - k, np.arange(len(schedules)) == k)
    batch.reset()
    optimum = bound(scenario, *episode(batch))
    for t in range(scenario.steps):
        batch.step(np.stack([schedules[:, t], 1 - schedules[:, t]], axis=1))
    best = (-batch.totals["reward"] / scenario.steps).min()
    assert optimum.objective <= best <= 1.02 * optimum.objective
    assert replayed(scenario, optimum.shares, seed=4) == pytest.approx(optimum.objective, rel=2e-3)


@pytest.mark.parametrize(("name", "within"), [("paper", 2e-6), ("paper-dominance", 2e-6), ("steady", 1e-3)])
def test_it_is_attained_where_nothing_was_relaxed(name, within):
    scenario = load_scenario(name, steps=100)
    optimum = bound(scenario, *episode(started(scenario, 1, 5)))
    attained = replayed(scenario, optimum.shares, seed=5)
    assert optimum.objective <= attained <= optimum.objective * (1 + within)


def speedup(kappa, share):
    return np.where(kappa == 0, share, share * (1 + kappa) / np.where(kappa == 0, 1, share + kappa))


def relaxed_cost(programme, share, work, left):
    f = speedup(programme.kappa, share)
    square = np.divide(work**2, 2 * f, out=np.zeros_like(work), where=(work > 0) & (f > 0))
    short = programme.short * np.maximum(0, programme.min_share - share)
    cost = programme.holding * left + programme.within * square - programme.credit * work
    return (cost + programme.price * share + short).sum() / len(share)


@pytest.mark.parametrize("name", ["paper", "steady", "serverless", "workflow", "bursty", "fleet"])
def test_what_a_policy_does_is_a_point_of_the_programme_that_costs_no_more_there(name):
    scenario = load_scenario(name, steps=60, objective=ALL_TERMS if name == "serverless" else None)
    batch = started(scenario, 1, 3)
    generator = np.random.default_rng(0)
    programme = relaxed(scenario, *episode(batch))
    cost = played(batch, lambda view: generator.dirichlet(np.ones(len(scenario.agents)), 1))[0]
    base = batch.agents[0]["throughput"] * scenario.dt
    history = batch.history[0]
    share, work, left = history["share"], history["served"] / base, history["queue"] / base
    inflow = programme.arrivals.copy()
    inflow[1:] += left[:-1] + (work[:-1] @ programme.routing.T if programme.routing.size else 0.0)
    assert left + work == pytest.approx(inflow, abs=1e-9)
    f = speedup(programme.kappa, share)
    assert (work <= f + 1e-12).all() and (share.sum(axis=1) <= programme.gpus + 1e-12).all()
    priced = relaxed_cost(programme, share, work, left)
    if scenario.platform.reallocation_s == 0:
        assert priced == pytest.approx(cost, rel=1e-12)
    else:
        assert priced < cost
    assert bound(scenario, *episode(started(scenario, 1, 3))).objective <= priced


@pytest.mark.parametrize("terms", [None, ALL_TERMS])
@pytest.mark.parametrize(
    "name",
    ["paper", "steady", "serverless", "workflow", "diurnal", pytest.param("fleet", marks=pytest.mark.slow)],
)
def test_the_bound_is_close_to_what_a_point_of_the_programme_costs(name, terms):
    scenario = load_scenario(name, steps=40, objective=terms)
    programme = relaxed(scenario, *episode(started(scenario, 1, 2)))
    optimum = solve(programme)
    share, work = optimum.share, optimum.work
    assert (work <= speedup(programme.kappa, share) + 1e-9).all()
    assert (share.sum(axis=1) <= programme.gpus + 1e-9).all()
    inflow = programme.arrivals.copy()
    inflow[1:] += work[:-1] @ programme.routing.T if programme.routing.size else 0.0
    left = np.cumsum(inflow - work, axis=0)
    assert (left >= -1e-6).all()
    cost = relaxed_cost(programme, share, work, left)
    # A mixture of points costs more than the point that it amounts to.
    assert optimum.lower_bound <= cost + 1e-9 and cost <= optimum.cost + 1e-9
    assert optimum.cost - optimum.lower_bound <= 1e-2 * abs(optimum.lower_bound)


def test_a_programme_that_the_simplex_method_gives_up_is_solved_all_the_same(monkeypatch):
    solved = optimize.linprog

    def gives_up(*, method, **programme):
        result = solved(method=method, **programme)
        return optimize.OptimizeResult(status=4) if method == "highs-ds" else result

    scenario = load_scenario("workflow", steps=20)
    programme = relaxed(scenario, *episode(started(scenario, 1, 4)))
    least = solve(programme).lower_bound
    monkeypatch.setattr(optimize, "linprog", gives_up)
    assert solve(programme).lower_bound == pytest.approx(least, rel=1e-3)
    monkeypatch.setattr(optimize, "linprog", lambda **_: optimize.OptimizeResult(status=4))
    with pytest.raises(RuntimeError, match="HiGHS found no optimum"):
        solve(programme)


@pytest.mark.slow
def test_an_episode_on_which_the_simplex_method_never_ends_has_a_bound():
    scenario = load_scenario("workflow")
    (bound,) = lower_bounds(scenario, 1, 10022, workers=1)
    assert 0.99 * 0.2477 < bound < 0.2477  # what a point of the programme costs


def test_the_same_programme_has_the_same_bound_bit_for_bit():
    scenario = load_scenario("workflow", steps=60)
    programme = relaxed(scenario, *episode(started(scenario, 1, 4)))
    once, again = solve(programme), solve(programme)
    assert once.lower_bound == again.lower_bound and once.share.tobytes() == again.share.tobytes()


@pytest.mark.parametrize("name", ["paper", "steady", "serverless", "workflow", "bursty"])
def test_tangents_find_the_same_optimum(name):
    scenario = load_scenario(name, steps=40, load=None if name.startswith("paper") else 0.7)
    batch = started(scenario, 1, 2)
    programme = relaxed(scenario, *episode(batch))
    least = bound(scenario, *episode(batch))
    anywhere = np.ones(programme.arrivals.shape, dtype=np.bool_)
    points = [(programme.arrivals, np.full(programme.arrivals.shape, 0.25))]
    for _ in range(4):
        share, work, _ = drifting_shares(programme, anywhere, 1.0, 0.0, points)
        points.append((work, share))
    f = speedup(programme.kappa, share)
    work = np.minimum(work, f)
    left = np.zeros_like(work)
    waiting = np.zeros(work.shape[1])
    for t in range(len(work)):
        waiting = waiting + programme.arrivals[t]
        if t and programme.routing.size:
            waiting = waiting + programme.routing @ work[t - 1]
        work[t] = np.minimum(work[t], waiting)
        left[t] = waiting = waiting - work[t]
    cost = relaxed_cost(programme, share, work, left)
    assert least.objective <= cost + 1e-12
    assert cost == pytest.approx(least.objective, rel=5e-3, abs=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_the_cmu_rule_attains_it_under_end_of_step_holding_cost(seed):
    scenario = load_scenario("steady", objective={"latency": 1.0, "cost": 0.0, "throughput": 0.0})
    batch = started(scenario, 1, seed)
    mean_rate, agents = batch.state[0]["mean_rate"].copy(), batch.agents[0]
    order = np.argsort(-agents["weight"] * agents["throughput"])
    held = 0.0
    for _ in range(scenario.steps):
        wanted = batch.view.queue[0] / (agents["throughput"] * scenario.dt)
        # Each takes what empties its queue of what those before it have left.
        before = np.cumsum(wanted[order]) - wanted[order]
        shares = np.zeros(4)
        shares[order] = np.clip(1 - before, 0, wanted[order])
        batch.step(shares[None])
        held += agents["weight"] @ batch.outcome[0]["queue"]
    cost = held / (agents["weight"] @ mean_rate) / scenario.steps
    least = bound(scenario, batch.arrivals[:, 0], mean_rate, agents, holding="end-of-step").objective
    assert least <= cost <= least + 1e-6


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["serverless", "workflow", "paper"]), st.floats(0.0, 3.0))
def test_any_multipliers_make_a_bound(seed, name, size):
    scenario = load_scenario(name, steps=12, objective={"shortfall": 0.5})
    batch = started(scenario, 1, seed)
    programme = relaxed(scenario, *episode(batch))
    generator = np.random.default_rng(seed)
    value = size * generator.standard_normal(programme.arrivals.shape) * programme.holding * 12
    shares = generator.dirichlet(np.ones(4), 12) * generator.random((12, 1)) ** 0.2
    best = min(replayed(scenario, shares, seed), bound(scenario, *episode(batch)).objective + 1e-5)
    assert dual_value(programme, value) <= best


@settings(max_examples=200, deadline=None)
@given(st.floats(-3, 5), st.floats(0, 3), st.floats(0, 1))
def test_no_work_earns_more_than_the_serving_gain(worth, within, busy):
    gain = serving_gain(np.array([worth]), np.array([within]))[0]
    assert gain >= worth * busy - 0.5 * within * busy**2 - 1e-12
    attained = max(worth * b - 0.5 * within * b**2 for b in np.linspace(0, 1, 2001))
    assert gain <= attained + 1e-6


@settings(max_examples=200, deadline=None)
@given(
    gain=st.floats(0, 5),
    price=st.floats(0, 3),
    short=st.sampled_from([0.0, 0.4, 2.0]),
    minimum=st.floats(0, 1),
    kappa=st.sampled_from([None, 0.05, 1.0]),
    share=st.floats(0, 1),
)
def test_no_share_costs_less_than_the_best_one(gain, price, short, minimum, kappa, share):
    programme = relaxed(small((kappa, kappa), steps=1), np.ones((1, 2)), np.ones(2), parameters(kappa))
    programme = programme._replace(min_share=np.full(2, minimum), short=np.full((1, 2), short))
    gains = np.full((1, 2), gain)

    def cost(g):
        f = g if kappa is None else g * (1 + kappa) / (g + kappa)
        return price * g - gain * f + short * max(0.0, minimum - g)

    best = best_shares(programme, gains, np.array([price]))[0, 0]
    assert cost(best) <= cost(share) + 1e-9


def parameters(kappa=None):
    return Batch(small((kappa, kappa)), 1).agents[0]


@pytest.mark.slow
def test_it_can_be_computed_in_processes_and_says_how_far_it_is():
    scenario = load_scenario("serverless", steps=40)
    done = []
    here = lower_bounds(scenario, 3, 20, workers=1, progress=done.append)
    assert done == [1, 2, 3]
    assert lower_bounds(scenario, 3, 20, workers=2).tobytes() == here.tobytes()
    batch = started(scenario, 3, 20)
    assert [bound(scenario, *episode(batch, b)).objective for b in range(3)] == here.tolist()


@pytest.mark.slow
def test_what_the_progress_raises_ends_the_processes_work_and_later_work_goes_on():
    scenario = load_scenario("serverless", steps=10)

    def enough(done):
        raise RuntimeError(f"enough after {done}")

    with pytest.raises(RuntimeError, match="enough after 1"):
        lower_bounds(scenario, 6, 20, workers=2, progress=enough)
    assert len(lower_bounds(scenario, 2, 20, workers=2)) == 2


@pytest.mark.slow
def test_two_threads_can_use_processes_at_once_each_as_many_as_it_likes():
    scenario = load_scenario("serverless", steps=10)
    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(lower_bounds, scenario, 8, 20, workers=3)
        mine = lower_bounds(scenario, 4, 20, workers=2)
        assert other.result()[:4].tobytes() == mine.tobytes()


def test_an_episode_in_which_nothing_arrives_costs_nothing():
    scenario = small(objective=Objective())
    assert bound(scenario, np.zeros((4, 2)), np.zeros(2), parameters()).objective == pytest.approx(
        0, abs=1e-6
    )


@pytest.mark.parametrize(
    ("arrivals", "mean_rate", "message"),
    [
        (np.zeros((3, 2)), np.ones(2), r"arrivals must have shape \(4, 2\) or \(5, 2\), got \(3, 2\)"),
        (np.full((4, 2), np.nan), np.ones(2), r"arrivals must be finite .* got nan at \(0, 0\)"),
        (np.full((4, 2), -1.0), np.ones(2), r"arrivals must be finite and not negative, got -1.0"),
        (np.ones((4, 2)), np.array([1.0, np.inf]), r"mean_rate must be finite .* got inf at \(1,\)"),
        (np.ones((4, 2)), np.ones(3), r"mean_rate must have shape \(2,\), got \(3,\)"),
    ],
)
def test_input_that_no_episode_can_have_is_refused(arrivals, mean_rate, message):
    with pytest.raises(ValueError, match=message):
        bound(small(), arrivals, mean_rate, parameters())
    with pytest.raises(ValueError, match="holding must be"):
        bound(small(), np.ones((4, 2)), np.ones(2), parameters(), holding="never")

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.episodes import started

from gpualloc_env import (
    SCENARIOS,
    Agent,
    Batch,
    Burst,
    Cycle,
    Scenario,
    ScenarioError,
    Surge,
    Traffic,
    load_scenario,
    observe,
)
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.arrivals import TABULATED
from gpualloc_env.simulation.random import (
    exponential,
    poisson_quantile,
    seed_generator,
    tabulate_poisson,
    tabulated_quantile,
    uniform,
)
from gpualloc_env.simulation.state import AGENT

BURST = Burst(ratio=4, on_s=10, off_s=50)


@compiled
def tabulate(mean, table):
    return tabulate_poisson(mean, table)


@compiled
def look_up(probability, mean, table):
    return tabulated_quantile(probability, mean, table)


def numbers(seed, count, draw=uniform, *parameters):
    generator = np.empty(4, dtype=np.uint64)
    seed_generator(generator, np.uint64(seed))
    return np.array([draw(generator, *parameters) for _ in range(count)])


def drawn(traffic, *, steps, envs=1, dt=1.0, seed=0, agents=1, base=100.0):
    """External arrivals of the T steps, (T, B, N), and the mean rates, (B, N)."""
    scenario = Scenario(
        name="drawn",
        agents=tuple(Agent(name=f"agent-{i}", model_mb=0, throughput_rps=base) for i in range(agents)),
        traffic=traffic,
        steps=steps,
        dt=dt,
    )
    batch = started(scenario, envs, seed)
    return batch.arrivals[:steps], batch.state["mean_rate"]


@pytest.mark.parametrize("mean", [0.1, 3.0, 17.0, 120.0, 1900.0])
def test_counts_follow_the_poisson_law(mean):
    arrivals, _ = drawn(Traffic(rates_rps=(mean,)), steps=20_000, seed=3)
    counts = arrivals.ravel().astype(int)
    assert (counts == arrivals.ravel()).all()
    # About twenty classes of equal weight, bounded by quantiles of the law.
    edges = np.unique(stats.poisson.ppf(np.linspace(0.05, 0.95, 19), mean))
    expected = np.diff(np.concatenate([[0], stats.poisson.cdf(edges, mean), [1]])) * len(counts)
    observed = np.bincount(np.searchsorted(edges, counts), minlength=len(edges) + 1)
    assert stats.chisquare(observed, expected).pvalue > 1e-3


@pytest.mark.parametrize("mean", [1e-9, 0.1, 1.0, 3.0, 15.999, 16.0, 17.0, 120.0, 1900.0, 50_000.0])
def test_quantiles_are_those_of_the_poisson_law(mean):
    tails = 10.0 ** np.arange(-12, -1)
    for probability in (*tails, *np.linspace(0.013, 0.987, 41), *(1 - tails)):
        count = poisson_quantile(probability, mean)
        # The smallest count whose probability is enough, to the rounding of the two sums.
        rounding = 1e-13 if probability > 0.5 else 1e-9 * probability
        assert stats.poisson.cdf(count, mean) >= probability - rounding
        assert count == 0 or stats.poisson.cdf(count - 1, mean) < probability + rounding
        if 1e-9 < probability < 1 - 1e-9:
            assert count == stats.poisson.ppf(probability, mean)


def test_nothing_arrives_at_rate_zero():
    assert poisson_quantile(0.999999, 0.0) == 0


def test_the_largest_uniform_number_gives_a_finite_count():
    for mean in (1e-3, 3.0, 120.0, 1e5):
        assert poisson_quantile(1 - 2**-54, mean) <= mean + 12 * np.sqrt(mean) + 20


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    probability=st.floats(1e-12, 1 - 1e-12),
    mean=st.floats(1e-3, 3000),
    more=st.floats(1e-6, 100),
)
def test_a_higher_mean_never_lowers_the_count(probability, mean, more):
    assert poisson_quantile(probability, mean + more) >= poisson_quantile(probability, mean)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    means=st.lists(st.floats(0, 500), min_size=1, max_size=3),
    draws=st.lists(st.tuples(st.integers(0, 2), st.floats(2**-54, 1 - 2**-53)), min_size=1, max_size=30),
)
def test_a_tabulated_law_gives_what_a_fresh_one_gives(means, draws):
    rooms = np.empty((len(means), TABULATED))
    tables = [room[: tabulate(mean, room)] for mean, room in zip(means, rooms, strict=True)]
    for which, probability in draws:
        mean, table = means[which % len(means)], tables[which % len(means)]
        assert look_up(probability, mean, table) == poisson_quantile(probability, mean)


def test_uniform_numbers_are_uniform():
    sample = numbers(1, 20_000)
    assert stats.kstest(sample, "uniform").pvalue > 1e-3
    assert 0 < sample.min() and sample.max() < 1


def test_exponential_numbers_are_exponential():
    sample = numbers(2, 20_000, exponential, 4.0)
    assert stats.kstest(sample, "expon", args=(0, 4.0)).pvalue > 1e-3


def test_the_generator_is_xoshiro256_plus_plus_seeded_by_splitmix64():
    mask = 2**64 - 1

    def rotated(word, by):
        return ((word << by) | (word >> (64 - by))) & mask

    counter, words = 42, []
    for _ in range(4):
        counter = (counter + 0x9E3779B97F4A7C15) & mask
        word = ((counter ^ (counter >> 30)) * 0xBF58476D1CE4E5B9) & mask
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
        words.append(word ^ (word >> 31))
    expected = []
    for _ in range(50):
        expected.append((rotated((words[0] + words[3]) & mask, 23) + words[0]) & mask)
        shifted = (words[1] << 17) & mask
        words[2] ^= words[0]
        words[3] ^= words[1]
        words[1] ^= words[2]
        words[0] ^= words[3]
        words[2] ^= shifted
        words[3] = rotated(words[3], 45)
    assert numbers(42, 50).tolist() == [((word >> 11) + 0.5) * 2.0**-53 for word in expected]


def test_neighbouring_seeds_are_not_correlated():
    arrivals, _ = drawn(Traffic(rates_rps=(500.0,)), steps=400, envs=60, seed=1000)
    correlations = np.corrcoef(arrivals[:, :, 0].T)[np.triu_indices(60, 1)]
    # Of 1770 independent correlations, each of deviation 1/√400, none is expected beyond five.
    assert abs(correlations).max() < 5 / 20
    assert correlations.mean() == pytest.approx(0, abs=0.01)


def test_the_episodes_of_one_environment_are_not_correlated():
    batch = started(Scenario(name="one", traffic=Traffic(rates_rps=(500.0,) * 4), steps=400))
    first = batch.arrivals[:400, 0].copy()
    batch.reset()
    assert abs(np.corrcoef(first.ravel(), batch.arrivals[:400, 0].ravel())[0, 1]) < 5 / 40


def test_agents_are_not_correlated():
    arrivals, _ = drawn(Traffic(rates_rps=(500.0,) * 4), steps=2000, agents=4)
    correlations = np.corrcoef(arrivals[:, 0].T)[np.triu_indices(4, 1)]
    assert abs(correlations).max() < 5 / np.sqrt(2000)


def test_constant_traffic_brings_rate_times_dt_in_every_step():
    arrivals, mean_rate = drawn(Traffic(law="constant", rates_rps=(3.0, 0.5)), steps=20, dt=0.25, agents=2)
    assert (arrivals == [0.75, 0.125]).all()
    assert mean_rate.tolist() == [[3.0, 0.5]]


@pytest.mark.parametrize("dt", [0.1, 1.0, 7.0])
def test_bursts_keep_the_mean_rate_and_are_on_a_sixth_of_the_time(dt):
    law = Traffic(law="constant", rates_rps=(60.0,), burst=BURST)
    arrivals, _ = drawn(law, steps=int(3000 / dt), envs=400, dt=dt)
    rate = arrivals[..., 0] / dt
    # On: 4 × 40 = 160; off: 40; so that 160 / 6 + 40 × 5 / 6 = 60.
    assert rate.min() == pytest.approx(40) and rate.max() == pytest.approx(160)
    on = (rate - 40) / 120
    # Independent spells of 60 s in the mean: about 20 000 of them.
    assert on.mean() == pytest.approx(1 / 6, abs=0.005)
    assert rate.mean() == pytest.approx(60, rel=0.01)
    assert on[0].mean() == pytest.approx(1 / 6, abs=0.08)


def test_spells_of_a_burst_last_ten_seconds_on_and_fifty_off():
    law = Traffic(law="constant", rates_rps=(60.0,), burst=BURST)
    arrivals, _ = drawn(law, steps=200_000, dt=0.1)
    on = arrivals[:, 0, 0] > 10
    turns = np.flatnonzero(np.diff(on.astype(int)))
    lengths = np.diff(turns) * 0.1
    spells = {state: lengths[on[turns[:-1] + 1] == state] for state in (True, False)}
    # Some 330 spells of each kind: the mean of exponential times is known to 1/√330.
    assert spells[True].mean() == pytest.approx(10, rel=0.2)
    assert spells[False].mean() == pytest.approx(50, rel=0.2)


@pytest.mark.parametrize("dt", [0.1, 1.0])
def test_the_variance_of_bursty_counts_is_that_of_a_two_state_process(dt):
    arrivals, _ = drawn(
        Traffic(rates_rps=(60.0,), burst=BURST), steps=int(1000 / dt), envs=1000, dt=dt, seed=5
    )
    # Var = λ dt + 2 σ² τ² (dt/τ − 1 + e^(−dt/τ)): σ² = p (1 − p) (160 − 40)², 1/τ = 1/10 + 1/50.
    tau, sigma2 = 50 / 6, (5 / 36) * 120**2
    theory = 60 * dt + 2 * sigma2 * tau**2 * (dt / tau - 1 + np.exp(-dt / tau))
    assert arrivals.var() == pytest.approx(theory, rel=0.03)


def test_a_finer_step_only_divides_the_counts():
    # The law of the traffic does not depend on dt: ten counts of 0.1 s vary as one of 1 s.
    traffic = Traffic(rates_rps=(60.0,), burst=BURST)
    fine, _ = drawn(traffic, steps=10_000, envs=400, dt=0.1, seed=6)
    coarse, _ = drawn(traffic, steps=1000, envs=400, dt=1.0, seed=7)
    summed = fine.reshape(1000, 10, 400).sum(axis=1)
    assert summed.var() == pytest.approx(coarse.var(), rel=0.05)
    assert summed.mean() == pytest.approx(coarse.mean(), rel=0.02)


def test_a_drawn_mix_has_the_moments_of_a_dirichlet_law():
    traffic = Traffic(load=0.8, mix_concentration=2)
    _, rates = drawn(traffic, steps=1, envs=20_000, agents=4)
    mix = rates / rates.sum(axis=1, keepdims=True)
    # Dirichlet(2, 2, 2, 2): mean 2/8, variance 2·6 / (8²·9), covariance −2·2 / (8²·9).
    covariance = np.cov(mix.T)
    assert mix.mean(axis=0) == pytest.approx(np.full(4, 0.25), abs=0.005)
    assert np.diag(covariance) == pytest.approx(np.full(4, 12 / 576), rel=0.05)
    assert covariance[np.triu_indices(4, 1)] == pytest.approx(np.full(6, -4 / 576), rel=0.1)


def test_every_serverless_episode_has_load_four_fifths_and_another_mix():
    scenario = load_scenario("serverless", steps=3)
    base = np.array([agent.throughput_rps for agent in scenario.agents])
    batch = Batch(scenario, 500)
    batch.seed(0)
    mixes = []
    for _ in range(3):
        batch.reset()
        rates = batch.state["mean_rate"]
        assert (rates / base).sum(axis=1) == pytest.approx(np.full(500, 0.8), rel=1e-12)
        mixes.append(rates[:, 0].copy())
    assert len(np.unique(mixes)) == 1500


def test_traffic_comes_at_the_mean_rate_that_the_objective_counts_with():
    batch = started(load_scenario("serverless", steps=3000), 200)
    counted = batch.arrivals[:3000].mean(axis=0)
    assert counted.sum(axis=0) == pytest.approx(batch.state["mean_rate"].sum(axis=0), rel=0.02)


@pytest.mark.parametrize("dt", [0.01, 0.1, 0.3, 0.7, 2.0, 7.0])
def test_a_surge_adds_exactly_its_requests_also_where_dt_does_not_divide_it(dt):
    surge = Surge(agent="agent-0", factor=10, start_s=3.1, end_s=5.2)
    steps = int(np.ceil(8 / dt))
    traffic = Traffic(law="constant", rates_rps=(2.0,), surges=(surge,))
    arrivals, mean_rate = drawn(traffic, steps=steps, dt=dt)
    # 2 requests/s all the time, and 9 × 2 more during 2.1 s.
    assert arrivals.sum() == pytest.approx(2 * steps * dt + 18 * 2.1)
    assert mean_rate[0, 0] == pytest.approx(arrivals.sum() / (steps * dt))
    starts = dt * np.arange(steps)
    overlap = np.clip(np.minimum(starts + dt, 5.2) - np.maximum(starts, 3.1), 0, None)
    assert arrivals[:, 0, 0] == pytest.approx(2 * dt + 18 * overlap)


def test_a_surge_of_factor_zero_silences_its_agent_alone():
    surge = Surge(agent="agent-1", factor=0, start_s=1, end_s=2)
    arrivals, _ = drawn(Traffic(rates_rps=(50.0, 50.0), surges=(surge,)), steps=3, agents=2)
    assert (arrivals[:, 0] == 0).tolist() == [[False, False], [False, True], [False, False]]


@pytest.mark.parametrize(
    ("dt", "silent"), [(0.1, 1), (0.1, 3), (0.1, 4), (0.1, 7), (0.1, 10), (0.1, 30), (0.3, 3), (0.7, 4)]
)
def test_a_silence_leaves_nothing_where_its_edges_are_rounded(dt, silent):
    surge = Surge(agent="agent-0", factor=0, start_s=0, end_s=silent * dt)
    arrivals, _ = drawn(Traffic(law="constant", rates_rps=(8.0,), surges=(surge,)), steps=silent + 1, dt=dt)
    assert arrivals[:, 0, 0].tolist() == [0.0] * silent + [8.0 * dt]
    with pytest.raises(ScenarioError, match=r"load = 0\.8 cannot be reached"):
        drawn(Traffic(rates_rps=(8.0,), load=0.8, surges=(surge,)), steps=silent, dt=dt)


def test_surges_that_overlap_multiply():
    surges = (
        Surge(agent="agent-0", factor=3, start_s=1, end_s=3),
        Surge(agent="agent-0", factor=2, start_s=2, end_s=4),
    )
    arrivals, _ = drawn(Traffic(law="constant", rates_rps=(1.0,), surges=surges), steps=5)
    assert arrivals.ravel().tolist() == [1, 3, 6, 2, 1]


def test_two_silences_at_once_are_silence():
    silences = tuple(Surge(agent="agent-0", factor=0, start_s=1, end_s=2) for _ in range(2))
    arrivals, _ = drawn(Traffic(law="constant", rates_rps=(1.0,), surges=silences), steps=3)
    assert arrivals.ravel().tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "name", [name for name, each in SCENARIOS.items() if each.traffic and each.service == "fluid"]
)
def test_the_extra_row_of_arrivals_is_drawn_too(name):
    batch = started(load_scenario(name, steps=4), 8)
    assert batch.arrivals.shape[0] == 5 and batch.arrivals[4].any()


def test_a_common_burst_drives_all_agents_and_separate_ones_do_not():
    on = {}
    for common in (True, False):
        burst = BURST.model_copy(update={"common": common})
        law = Traffic(law="constant", rates_rps=(60.0, 6.0), burst=burst)
        arrivals, _ = drawn(law, steps=3000, envs=20, agents=2)
        on[common] = (arrivals / [60, 6] - 2 / 3) / 2
        assert on[common].mean() == pytest.approx(1 / 6, abs=0.01)
    assert on[True][..., 0] == pytest.approx(on[True][..., 1])
    assert abs(np.corrcoef(on[False].reshape(-1, 2).T)[0, 1]) < 0.05


@pytest.mark.parametrize("dt", [0.01, 0.5, 1.0, 7.0, 10.0])
def test_a_cycle_is_averaged_exactly_over_each_step(dt):
    law = Traffic(law="constant", rates_rps=(5.0,), cycle=Cycle(amplitude=0.8, period_s=60, peak_s=15))
    steps = int(60 / dt)
    arrivals, mean_rate = drawn(law, steps=steps, dt=dt)
    # ∫ 5 (1 + 0.8 sin(2π t/60)) dt, whose peak is at 15 s.
    integral = [
        5 * (t - 0.8 * 60 / (2 * np.pi) * np.cos(2 * np.pi * t / 60)) for t in dt * np.arange(steps + 1)
    ]
    assert arrivals.ravel() == pytest.approx(np.diff(integral))
    assert mean_rate[0, 0] == pytest.approx(arrivals.sum() / (steps * dt))


@pytest.mark.parametrize("dt", [0.1, 1.0, 5.0, 10.0])
def test_a_surge_multiplies_the_cycle_of_its_own_seconds_whatever_the_step(dt):
    surge = Surge(agent="agent-0", factor=10, start_s=0, end_s=4)
    cycle = Cycle(amplitude=0.8, period_s=12)
    traffic = Traffic(law="constant", rates_rps=(1.0,), cycle=cycle, surges=(surge,))
    arrivals, mean_rate = drawn(traffic, steps=int(20 / dt), dt=dt)

    def integral(t):
        return t + 0.8 * 12 / (2 * np.pi) * np.sin(2 * np.pi * t / 12)

    assert arrivals.sum() == pytest.approx(integral(20) + 9 * integral(4))
    assert mean_rate[0, 0] == pytest.approx(arrivals.sum() / 20)


def test_the_clock_does_not_change_the_rate_of_a_cycle_whose_load_is_set():
    night = load_scenario("diurnal", load=0.5, steps=10)
    whole = load_scenario("diurnal", load=0.5)
    drawn_night, drawn_whole = started(night, seed=4), started(whole, seed=4)
    assert (drawn_night.arrivals[:11, 0] == drawn_whole.arrivals[:11, 0]).all()
    assert drawn_night.state["mean_rate"][0, 0] < 0.25 * drawn_whole.state["mean_rate"][0, 0]


def arrivals_of(name, envs, **changes):
    scenario = load_scenario(name, **changes)
    batch = started(scenario, envs, 10_000)
    return batch, batch.arrivals[: scenario.steps]


def test_bursty_is_as_uneven_as_the_azure_code_log():
    _, arrivals = arrivals_of("bursty", 100)
    counts = arrivals.sum(axis=2)
    assert counts.mean() == pytest.approx(4, rel=0.1)
    dispersion = counts.var(axis=0) / counts.mean(axis=0)
    assert dispersion.mean() == pytest.approx(13, abs=2)
    assert counts.var() / counts.mean() == pytest.approx(13, abs=2)
    minutes = counts.reshape(10, 60, 100).sum(axis=1)
    assert (minutes.max(axis=0) / minutes.mean(axis=0)).mean() == pytest.approx(4, abs=1)


def test_diurnal_has_a_peak_of_1_8_times_its_mean_and_nights_of_a_fifth():
    batch, arrivals = arrivals_of("diurnal", 500)
    rate = arrivals.sum(axis=2).mean(axis=1)
    assert rate.mean() == pytest.approx(batch.state["mean_rate"][0].sum(), rel=0.01)
    assert rate[290:310].mean() / rate.mean() == pytest.approx(1.8, rel=0.02)
    assert rate[[*range(10), *range(590, 600)]].mean() / rate.mean() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("name", ["steady", "diurnal", "workflow"])
def test_counts_of_scenarios_without_bursts_follow_the_poisson_law(name):
    batch, arrivals = arrivals_of(name, 100)
    source = batch.source
    rates = batch.state["mean_rate"][0] if source.visits.size == 0 else arrivals.mean(axis=(0, 1))
    mean = source.profile[: len(arrivals)] * (rates / source.mean_profile)
    counts = arrivals[..., rates > 0].transpose(1, 0, 2)
    mean = np.broadcast_to(mean[:, rates > 0], counts.shape)
    # Randomised probability integral transform: uniform if, and only if, each count has its own law.
    spread = np.random.default_rng(0).random(counts.shape)
    uniforms = stats.poisson.cdf(counts - 1, mean) + spread * stats.poisson.pmf(counts, mean)
    observed, _ = np.histogram(uniforms, bins=50, range=(0, 1))
    assert stats.chisquare(observed).pvalue > 1e-3


def test_serverless_has_the_variance_of_its_mix_and_its_bursts():
    batch, arrivals = arrivals_of("serverless", 2000)
    rates = batch.state["mean_rate"]
    # Given the rates λ of an episode: Var = λ + λ² c², c² of a process that is on a sixth of the time,
    # at 8/3 and else at 2/3 of the mean, averaged over a step of 1 s.
    tau = 50 / 6
    averaging = 2 * tau**2 * (1 / tau - 1 + np.exp(-1 / tau))
    theory = rates + rates**2 * (5 / 36) * 4 * averaging
    assert ((arrivals - rates) ** 2).mean() == pytest.approx(theory.mean(), rel=0.03)


def test_workflow_tasks_visit_each_agent_as_the_traffic_equations_say():
    batch, arrivals = arrivals_of("workflow", 4)
    rates = batch.state["mean_rate"][0]
    # A task passes the coordinator 1/.45 times, and each pass calls the specialists .22, .15 and .18 times.
    assert rates / rates[0] == pytest.approx([1, 0.22, 0.15, 0.18])
    assert (rates / [100, 50, 60, 30]).sum() == pytest.approx(0.8)
    assert (arrivals[..., 1:] == 0).all()


def test_a_fleets_agents_are_drawn_anew_in_each_episode_around_their_kinds():
    scenario = load_scenario("fleet", steps=3)
    batch = Batch(scenario, 200)
    batch.seed(0)
    nominal = batch.agents[0].copy()
    seen = []
    for _ in range(2):
        batch.reset()
        seen.append(batch.agents.copy())
        factors = {name: batch.agents[name] / nominal[name] for name in ("throughput", "kappa")}
        factors["cold_start"] = (batch.agents["cold_start"] - 2) / (nominal["cold_start"] - 2)
        factors["model_mb"] = batch.agents["model_mb"] / nominal["model_mb"]
        assert factors["model_mb"] == pytest.approx(factors["cold_start"], rel=1e-9)
        assert batch.agents["need_mb"] == pytest.approx(batch.agents["model_mb"], rel=1e-12)
        for factor in factors.values():
            assert stats.kstest(factor.ravel(), "uniform", args=(0.7, 0.6)).pvalue > 1e-3
        for name in set(AGENT.names) - {*factors, "need_mb", "observed"}:
            assert (batch.agents[name] == nominal[name]).all()
        load = (batch.state["mean_rate"] / batch.agents["throughput"]).sum(axis=1) / 8
        assert load == pytest.approx(np.full(200, 0.8), rel=1e-12)
        assert (batch.observation == observe(batch.view)).all()
    assert (seen[0]["throughput"] != seen[1]["throughput"]).all()
    assert nominal["min_share"].sum() == pytest.approx(8)

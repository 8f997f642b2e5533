"""Fits to logs whose law is known, the statistics of a log by hand, and how a fit fails."""

import gzip
import shutil
from dataclasses import replace
from itertools import pairwise
from math import exp, log

import gymnasium as gym
import numpy as np
import pytest
import scipy.linalg

import training.fit
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.scenario.traffic import Burst, Cycle, Traffic
from gpualloc_env.traces.formats import read_log
from training.cli import run as run_command
from training.fit import FitConfig, main
from training.fitting.burst_likelihood import (
    Stream,
    burst_log_likelihood,
    poisson_log_likelihood,
)
from training.fitting.cycle_regression import find_cycle
from training.fitting.drawn_log import drawn_times
from training.fitting.fit_report import Comparison, verdicts
from training.fitting.log_statistics import Statistics, counts, dispersion, spread, statistics
from training.fitting.request_streams import RequestStreams, rounded
from training.fitting.traffic_fit import fit_traffic

RATES = (1.0, 0.5, 0.5, 0.3)
BURST = Burst(ratio=4, on_s=10, off_s=50)
CYCLE = Cycle(amplitude=0.6, period_s=3600, peak_s=900)
# 1700 bursts of each agent: chance alone moves the fitted times on and off by 2 % (one standard
# deviation over seeds), those of common bursts, which are a quarter as many, by 2.6 %.
SPAN_S = 1e5


def scenario_of(**law):
    return Scenario(name="known", traffic=Traffic(rates_rps=RATES, **law))


def stream(times, span_s, rate):
    gaps = np.diff([0.0, *times, span_s])
    return Stream(rate, gaps, np.ones(len(gaps)), np.ones(len(times)))


def write_plain(path, times, decimals=6):
    """Write a log that names agents, its first request at 1000 s."""
    owner = np.repeat(np.arange(len(times)), [len(part) for part in times])
    merged = np.concatenate(times)
    names = [agent.name for agent in scenario_of().agents]
    lines = [f"{1000 + merged[k]:.{decimals}f},{names[owner[k]]}" for k in np.argsort(merged, kind="stable")]
    path.write_text("time_s,agent\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(*arguments):
    run_command(main, FitConfig, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def small_log(tmp_path_factory):
    """3000 s of bursts in the plain format."""
    times = drawn_times(scenario_of(burst=BURST), 3000.0, seed=3)
    return write_plain(tmp_path_factory.mktemp("log") / "small.csv", times)


def test_likelihood_is_that_of_matrix_exponentials():
    burst = Burst(ratio=5, on_s=2, off_s=7)
    times, end, rate = [0.5, 0.5, 0.6, 30.0, 31.0], 400.0, 2.0
    rates = rate * burst.off_factor * np.array([1, burst.ratio])
    generator = np.array([[-1 / 7, 1 / 7], [1 / 2, -1 / 2]])
    state = np.array([7 / 9, 2 / 9])
    total = 0.0
    for start, stop in pairwise([0.0, *times, end]):
        state = state @ scipy.linalg.expm((generator - np.diag(rates)) * (stop - start))
        if stop < end:
            state = state * rates
        total += log(state.sum())
        state = state / state.sum()
    assert burst_log_likelihood([stream(times, end, rate)], burst) == pytest.approx(total, rel=1e-12)


def test_likelihood_without_contrast_is_poisson():
    streams = [stream([1.0, 1.0, 4.0], 10.0, 0.3)]
    # 3 log 0.3 − 0.3 · 10, whether or not a process of ratio 1 runs
    assert poisson_log_likelihood(streams) == pytest.approx(3 * log(0.3) - 3)
    assert burst_log_likelihood(streams, Burst(ratio=1)) == pytest.approx(3 * log(0.3) - 3)


def test_likelihood_of_a_changing_rate():
    gaps, factor, mean = np.array([1.0, 2.0, 3.0]), np.array([0.5, 2.0]), np.array([0.8, 1.0, 1.1])
    # intensities 0.5 · 3 and 2 · 3, integral 3 · (0.8 + 2 + 3.3)
    expected = log(1.5) + log(6.0) - 3 * 6.1
    changing = Stream(3.0, gaps, mean, factor)
    assert poisson_log_likelihood([changing]) == pytest.approx(expected)
    assert burst_log_likelihood([changing], Burst(ratio=1)) == pytest.approx(expected)


def test_gaps_of_zero_and_of_a_year_have_a_finite_likelihood():
    times = [1.0] * 1000 + [3e7] * 1000
    assert np.isfinite(burst_log_likelihood([stream(times, 6e7, 2000 / 6e7)], Burst(ratio=1e4, on_s=0.1)))


def test_statistics_by_hand():
    # Two requests in one minute and six in the next; the half minute at the end is no window.
    times = np.array([0.0, 30.0, 60.0, 61.0, 61.0, 70.0, 90.0, 119.0, 125.0])
    values = statistics(times, 150.0)
    assert values.rate_rps == pytest.approx(9 / 150)
    assert counts(times, 150.0, 60.0).tolist() == [2, 6]
    # mean 4, variance (4 + 4) / 1
    assert values.dispersion_60s == pytest.approx(2.0)
    assert values.peak_over_mean == pytest.approx(1.5)
    gaps = [30, 30, 1, 0, 9, 20, 29, 6]
    assert values.gap_cv == pytest.approx(np.std(gaps) / np.mean(gaps))
    assert np.isnan(dispersion(np.zeros(5)))


def test_dispersion_of_bursts_is_the_one_that_theory_gives():
    times = drawn_times(scenario_of(burst=replace_burst(common=True)), 2e5, seed=5)
    values = statistics(np.sort(np.concatenate(times)), 2e5)
    # Rates ⅔ and 8/3 of the mean, on for ⅙ of the time, correlated over 1 / (1/10 + 1/50) s.
    rate, variance, correlation = sum(RATES), (8 / 3 - 2 / 3) ** 2 * 5 / 36, 50 / 6
    for window, value in (
        (1, values.dispersion_1s),
        (10, values.dispersion_10s),
        (60, values.dispersion_60s),
    ):
        decay = correlation / window * (1 - exp(-window / correlation))
        assert value == pytest.approx(1 + 2 * rate * variance * correlation * (1 - decay), rel=0.05)


def replace_burst(**changes):
    return BURST.model_copy(update=changes)


def test_requests_of_one_stamp_are_spread_over_the_time_it_stands_for():
    stamps = np.repeat([0.0, 3.0, 9.0], 4000)
    times = spread(stamps, 3.0, np.random.default_rng(0))
    assert np.all(np.diff(times) >= 0)
    assert np.floor(times / 3).tolist() == np.repeat([0, 1, 3], 4000).tolist()
    assert times[:4000].mean() == pytest.approx(1.5, abs=0.05)
    assert np.all(spread(np.floor(times / 3) * 3, 3.0, np.random.default_rng(0)) == times)


LAWS = {
    "poisson": {},
    "independent": {"burst": BURST},
    "common": {"burst": replace_burst(common=True)},
    "cycle": {"cycle": CYCLE},
    "bursts with a cycle": {"burst": BURST, "cycle": CYCLE},
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "common" else pytest.mark.slow) for name in LAWS],
)
def test_the_law_of_a_long_log_is_found_again(name):
    seed = 1
    truth = scenario_of(**LAWS[name]).traffic
    fit = fit_traffic(drawn_times(scenario_of(**LAWS[name]), SPAN_S, seed), SPAN_S).traffic
    assert fit.rates_rps == pytest.approx(truth.rates_rps, rel=0.05)
    assert_burst(fit.burst, truth.burst)
    if truth.cycle is None:
        assert fit.cycle is None
    else:
        assert fit.cycle.amplitude == pytest.approx(truth.cycle.amplitude, rel=0.05)
        assert fit.cycle.period_s == pytest.approx(truth.cycle.period_s, rel=0.01)
        assert fit.cycle.peak_s == pytest.approx(truth.cycle.peak_s, abs=0.01 * truth.cycle.period_s)


def assert_burst(fitted, truth):
    if truth is None:
        assert fitted is None
        return
    assert fitted.common == truth.common
    assert fitted.ratio == pytest.approx(truth.ratio, rel=0.05)
    assert fitted.on_s == pytest.approx(truth.on_s, rel=0.05)
    assert fitted.off_s == pytest.approx(truth.off_s, rel=0.05)


@pytest.mark.parametrize("decimals", [6, pytest.param(0, marks=pytest.mark.slow)])
def test_a_written_log_is_fitted_and_its_scenario_plays(decimals, tmp_path, capsys):
    times = drawn_times(scenario_of(burst=BURST), SPAN_S, seed=2)
    path = write_plain(tmp_path / "log.csv", [np.floor(t) if decimals == 0 else t for t in times], decimals)
    out = tmp_path / "fitted.toml"
    run(path, "--out", out, "--scenario", "serverless", "--draws", 3)
    scenario = load_scenario(out)
    assert scenario.name == "fitted"
    assert scenario.traffic.rates_rps == pytest.approx(RATES, rel=0.05)
    assert_burst(scenario.traffic.burst, BURST)
    base = load_scenario("serverless")
    assert (scenario.agents, scenario.platform, scenario.objective) == (
        base.agents,
        base.platform,
        base.objective,
    )
    assert scenario.routing is None and scenario.traffic.cycle is None
    said = capsys.readouterr().out
    assert ("Requests share stamps" in said) == (decimals == 0)
    assert "independent bursts" in said and "No statistic of the log lies" in said
    comment = [line for line in out.read_text().splitlines() if line.startswith("#")]
    assert comment[0] == f"# python -m training.fit {path} --out {out} --draws 3"
    assert any(line.startswith("# | index of dispersion at 60 s | ") for line in comment)
    assert any(line.startswith("# | reasoning | 0.") for line in comment)


def test_every_command_takes_the_scenario(small_log, tmp_path):
    out = tmp_path / "fitted.toml"
    run(small_log, "--out", out, "--draws", 2)
    env = gym.make("GPUAlloc-v0", scenario=str(out))
    env.reset(seed=0)
    assert env.step(np.full(4, 0.25))[4]["arrivals"].shape == (4,)
    env.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fitted.toml"]


def test_one_stream_arrives_at_the_coordinator_which_hands_it_on_by_work(tmp_path, capsys):
    generator = np.random.default_rng(1)
    times = np.cumsum(generator.exponential(0.5, 3000))
    # A third each of 100, 200 and 300 tokens: parts of the work 1/6, 2/6 and 3/6.
    lines = ["Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"]
    for k, time in enumerate(times):
        tokens = 100 * (k % 3 + 1)
        lines.append(f"{time:.6f},ChatGPT,{tokens},0,{tokens},API log")
    log = tmp_path / "burstgpt.csv.gz"
    log.write_bytes(gzip.compress("\n".join(lines).encode()))
    out = tmp_path / "fitted.toml"
    run(log, "--out", out, "--draws", 2)
    scenario = load_scenario(out)
    first, *others = scenario.traffic.rates_rps
    assert first == pytest.approx(2.0, rel=0.05) and others == [0, 0, 0]
    assert scenario.routing[0] == pytest.approx((0, 1 / 6, 2 / 6, 3 / 6), abs=2e-6)
    assert not np.any(scenario.routing[1:])
    assert scenario.traffic.burst is None
    # The same agents get the same parts of the load as in a replay of the log.
    replay = load_scenario("trace", trace=log, split="all").source().replay
    work = np.bincount(replay.agent, weights=replay.requests, minlength=4)
    total = scenario.visits @ np.array(scenario.traffic.rates_rps)
    assert total / total.sum() == pytest.approx(work / work.sum(), abs=0.02)
    assert "all requests arrive at coordinator" in capsys.readouterr().out


def test_a_log_with_tokens_is_fitted_for_servers_of_calls(tmp_path, capsys):
    generator = np.random.default_rng(1)
    times = np.cumsum(generator.exponential(0.5, 3000))
    lines = ["Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"]
    for k, time in enumerate(times):
        prompt, output = 500 * (k % 4 + 1), (20, 60)[k // 4 % 2]
        lines.append(f"{time:.6f},ChatGPT,{prompt},{output},{prompt + output},API log")
    log, out = tmp_path / "burstgpt.csv", tmp_path / "fitted.toml"
    log.write_text("\n".join(lines))
    run(log, "--out", out, "--scenario", "team", "--draws", 2)
    scenario, base = load_scenario(out), load_scenario("llm")
    assert scenario.service == "requests" and scenario.tasks is None and scenario.routing is None
    # Each agent serves a quarter of the requests, by the length of their prompts, with tokens of its own.
    assert scenario.traffic.rates_rps == pytest.approx([0.5] * 4, rel=0.05)
    assert [agent.prompt_tokens for agent in scenario.agents] == [500, 1000, 1500, 2000]
    assert all(agent.prompt_cv == 0 and agent.output_tokens == 40 for agent in scenario.agents)
    assert [agent.output_cv for agent in scenario.agents] == pytest.approx([0.5] * 4)
    for fitted, usual in zip(scenario.agents, base.agents, strict=True):
        assert fitted.iteration_s == usual.iteration_s and fitted.kv_tokens == usual.kv_tokens
        more = (fitted.prompt_tokens + 20) - (usual.prompt_tokens + usual.output_tokens / 2)
        read_s = usual.kv_mb_per_token / 3.35e6
        assert fitted.iteration_s_per_call - usual.iteration_s_per_call == pytest.approx(more * read_s)
    assert "coordinator 500 + 40" in capsys.readouterr().out
    env = gym.make("GPUAlloc-v0", scenario=str(out))
    env.reset(seed=0)
    assert (env.unwrapped.tasks.output >= 1).all() and len(env.unwrapped.tasks.time) > 400
    env.close()


def test_servers_of_calls_need_a_log_with_tokens(small_log, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(small_log, "--out", tmp_path / "fitted.toml", "--scenario", "llm", "--draws", 2)
    assert "has no tokens, and agents that serve calls need them" in capsys.readouterr().err


def test_coarse_stamps_of_mooncake_are_spread(tmp_path, capsys):
    times = drawn_times(scenario_of(burst=replace_burst(on_s=30, off_s=60)), 6000.0, seed=1)
    lines = [
        f'{{"timestamp": {int(t // 3) * 3000}, "input_length": 100, "output_length": 10, "hash_ids": [0]}}'
        for t in np.sort(np.concatenate(times))
    ]
    log = tmp_path / "mooncake.jsonl"
    log.write_text("\n".join(lines) + "\n")
    run(log, "--out", tmp_path / "fitted.toml", "--draws", 2)
    assert "multiples of 3 s" in capsys.readouterr().out


def test_draws_are_rounded_as_the_log_is():
    drawn = RequestStreams([np.array([0.2, 0.4, 2.9]), np.array([5.1])], 6.0, 3.0)
    same = rounded(drawn, seed=1)
    assert [np.floor(times / 3).tolist() for times in same.times] == [[0, 0, 0], [1]]
    assert rounded(replace(drawn, quantum_s=0.0), seed=1).times is drawn.times


def test_requests_at_equal_distances_have_neither_bursts_nor_a_cycle():
    fit = fit_traffic([np.arange(2000.0)], 2000.0)
    assert fit.traffic == Traffic(rates_rps=(1.0,))
    assert fit.candidate.gain == pytest.approx(0, abs=1e-6)


def test_a_statistic_that_some_draws_lack_is_the_mean_of_the_others():
    draws = np.ones((3, 6))
    draws[:, 1] = np.nan, 1.0, 3.0
    comparison = Comparison(Statistics(*np.ones(6)), draws)
    assert comparison.mean.tolist() == [1, 2, 1, 1, 1, 1]
    assert comparison.deviation[1] == pytest.approx(2**0.5)
    draws[:, 1] = np.nan
    assert np.isnan(comparison.mean[1]) and comparison.poor == []


def test_bursts_are_no_cycle():
    found = 0
    for seed in range(20):
        times = drawn_times(scenario_of(burst=Burst(ratio=20, on_s=60, off_s=600, common=True)), 2e4, seed)
        candidate = find_cycle(np.sort(np.concatenate(times)), 2e4)
        found += candidate.stands_out
    assert found <= 1


def test_a_cycle_is_seen_through_bursts():
    burst = Burst(ratio=20, on_s=20, off_s=100, common=True)
    law = scenario_of(burst=burst, cycle=Cycle(amplitude=0.7, period_s=2000))
    times = drawn_times(law, 4e4, seed=1)
    candidate = find_cycle(np.sort(np.concatenate(times)), 4e4)
    assert candidate.stands_out
    assert candidate.period_s == pytest.approx(2000, rel=0.02)


def comparison_of(log, mean, deviation):
    return Comparison(Statistics(*log), np.array(mean) + np.outer([-1, 0, 1], deviation))


def test_what_is_poor_is_said_by_rule():
    fit = (2.0, 2.0, 3.0, 5.0, 6.1, 2.0)
    good = comparison_of((2.1, 2.1, 3.1, 5.1, 6.2, 2.1), fit, np.full(6, 0.2))
    assert good.poor == [] and good.deviation == pytest.approx(np.full(6, 0.2))
    # Beyond chance but within a tenth; beyond a tenth, but within the 9.92 · √(4/3) deviations that
    # hold 99 % where two degrees of freedom tell the deviation.
    assert comparison_of((2.1, 2.5, 3, 5, 6.1, 2), fit, (0.001, 0.05, 1, 1, 1, 1)).poor == []
    assert comparison_of((2.1, 2.6, 3, 5, 6.1, 2), fit, (0.001, 0.05, 1, 1, 1, 1)).poor == [1]
    poor = comparison_of((2.0, 2.0, 3.0, 5.0, 14.2, 2.0), fit, np.full(6, 0.5))
    assert poor.poor == [4]
    assert verdicts(poor, {"nlp": good}, replace_burst(on_s=8.0)) == [
        "The index of dispersion at 60 s is 14.2 in the log and 6.1 ± 0.5 in the fit: "
        "some of its bursts last longer than the fitted 8 s, or come in clusters."
    ]
    (sentence,) = verdicts(good, {"nlp": poor}, BURST)
    assert sentence.startswith(
        "Agent nlp: index of dispersion at 60 s is 14.2 and 6.1 in the log and in the fit"
    )
    (sentence,) = verdicts(good, {"nlp": good}, BURST)
    assert sentence.startswith("No statistic")


def expect_failure(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


def test_an_out_that_cannot_be_is_refused_before_any_work(small_log, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training.fit, "read_log", lambda *_: pytest.fail("the log was read"))
    there = tmp_path / "there.toml"
    there.write_text("mine")
    assert "exists; give another name" in expect_failure(capsys, small_log, "--out", there)
    assert there.read_text() == "mine"
    assert "name it" in expect_failure(capsys, small_log, "--out", tmp_path / "fit.json")
    assert "make it first" in expect_failure(capsys, small_log, "--out", tmp_path / "no" / "fit.toml")
    message = expect_failure(capsys, small_log, "--out", tmp_path / "a.toml", "--scenario", "serverles")
    assert "did you mean 'serverless'?" in message
    message = expect_failure(capsys, small_log, "--out", tmp_path / "a.toml", "--scenario", "cluster-small")
    assert "scenario 'cluster-small' has nodes" in message and "python -m training.cluster" in message
    assert "draws must be at least 2" in expect_failure(
        capsys, small_log, "--out", tmp_path / "a.toml", "--draws", 1
    )
    assert [path.name for path in tmp_path.iterdir()] == ["there.toml"]


def test_a_log_that_cannot_be_fitted_is_refused(tmp_path, capsys):
    log, out = tmp_path / "log.csv", tmp_path / "fitted.toml"
    log.write_text("time_s,agent\n" + "5,nlp\n" * 200)
    assert "200 requests at one moment" in expect_failure(capsys, log, "--out", out)
    log.write_text("time_s,agent\n" + "".join(f"{k},nlp\n" for k in range(300)))
    message = expect_failure(capsys, log, "--out", out)
    assert "300 requests in 300 s do not suffice" in message and "at least 100 requests and 600 s" in message
    log.write_text("time_s,agent\n" + "".join(f"{10 * k},{'nlp' if k else 'npl'}\n" for k in range(300)))
    message = expect_failure(capsys, log, "--out", out)
    assert "agent 'npl' is not in the scenario, whose agents are coordinator, nlp" in message
    assert "no such file" in expect_failure(capsys, tmp_path / "none.csv", "--out", out)
    assert not out.exists()


def test_a_fit_that_cannot_be_written_leaves_nothing(small_log, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    drawn = training.fit.drawn_times

    def remove_the_folder(*arguments):
        shutil.rmtree(folder, ignore_errors=True)
        return drawn(*arguments)

    monkeypatch.setattr(training.fit, "drawn_times", remove_the_folder)
    with pytest.raises(SystemExit):
        run(small_log, "--out", folder / "fitted.toml", "--draws", 2)
    assert "there is no folder" in capsys.readouterr().err
    assert not folder.exists()


def test_the_same_log_gives_the_same_file(small_log, tmp_path):
    texts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        out = tmp_path / name / "fitted.toml"
        run(small_log, "--out", out, "--draws", 2)
        texts.append(out.read_text().replace(str(out), ""))
    assert texts[0] == texts[1]
    assert len(read_log(small_log).time_s) > 100

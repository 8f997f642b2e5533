"""The comparison against the paper's table, its files, and how it fails."""

import csv
import json
import shutil

import numpy as np
import pytest
from support.log_samples import played

import training.compare
from baselines import POLICIES
from gpualloc_env.metrics import mean_metrics, objectives
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.registry import SCENARIOS
from gpualloc_env.traces.log import Log
from training.artifacts import contestants
from training.artifacts.policies import PRETRAINED, AgentsError
from training.cli import run as run_command
from training.cli import status_console
from training.compare import ENTRIES, CompareConfig, Contest, main, named
from training.evaluation.evaluate import rollout
from training.evaluation.statistics import interval
from training.files.provenance import PACKAGES
from training.reporting.report import overview

PAPER = ("--scenario", "paper", "--policies", "static", "round-robin", "adaptive", "--episodes", "1")


def compare(out, *arguments):
    run_command(main, CompareConfig, [*arguments, "--out", str(out)])
    return json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    return compare(tmp_path_factory.mktemp("paper") / "out", *PAPER)


@pytest.mark.parametrize(
    ("metric", "static", "round_robin", "adaptive", "tolerance"),
    [
        ("paper_latency_s", 110.258, 756.061, 111.927, 5e-4),
        ("paper_throughput_rps", 60.0, 60.0, 58.12, 5e-3),
        ("paper_latency_std_s", 6.01, 0.47, 13.68, 5e-3),
        ("cost_usd", 0.020, 0.020, 0.020, 1e-12),
        ("latency_mean_s", 34.7, 34.7, 35.2, 5e-2),
    ],
)
def test_paper_table(paper, metric, static, round_robin, adaptive, tolerance):
    means = [paper["policies"][name]["metrics"][metric] for name in ("static", "round-robin", "adaptive")]
    assert means == pytest.approx([static, round_robin, adaptive], abs=tolerance)


@pytest.mark.parametrize(
    ("agent", "latency", "share"),
    [
        ("coordinator", 118.86, 0.2385),
        ("nlp", 108.67, 0.2538),
        ("vision", 128.56, 0.2115),
        ("reasoning", 91.61, 0.2961),
    ],
)
def test_paper_agents_under_algorithm_1(paper, agent, latency, share):
    metrics = paper["policies"]["adaptive"]["per_agent"][agent]
    assert metrics["paper_latency_s"] == pytest.approx(latency, abs=5e-3)
    assert metrics["share_mean"] == pytest.approx(share, abs=5e-5)


def test_one_episode_has_a_degenerate_interval(paper):
    assert (paper["scenario"], paper["episodes"], paper["seed"]) == ("paper", 1, 10000)
    for policy in paper["policies"].values():
        mean = policy["objective"]["mean"]
        assert policy["objective"]["ci95"] == [mean, mean] and mean == policy["metrics"]["objective"]
    assert paper["best"] == "round-robin" and set(paper["paired"]) == {"round-robin", "adaptive"}
    assert paper["paired"]["round-robin"]["round-robin"] == {"mean": 0.0, "ci95": [0.0, 0.0]}


def test_several_episodes(tmp_path):
    arguments = (
        "--scenario",
        "serverless",
        "--policies",
        "static",
        "adaptive",
        "--steps",
        "40",
        "--episodes",
        "8",
    )
    summary = compare(tmp_path / "first", *arguments)
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == sorted(ENTRIES)
    for policy in summary["policies"].values():
        low, high = policy["objective"]["ci95"]
        assert low < policy["objective"]["mean"] < high
    objectives = {name: policy["objective"]["mean"] for name, policy in summary["policies"].items()}
    assert summary["best"] == min(objectives, key=objectives.__getitem__)
    bound, adaptive, static = summary["bound"]["mean"], objectives["adaptive"], objectives["static"]
    assert bound < min(adaptive, static)
    closed = {name: policy["headroom_closed"] for name, policy in summary["policies"].items()}
    assert closed == {"adaptive": 0.0, "static": pytest.approx((adaptive - static) / (adaptive - bound))}
    with (tmp_path / "first" / "comparison.csv").open(newline="") as file:
        shown = {row["policy"]: row["headroom closed"] for row in csv.DictReader(file)}
    assert shown == {name: f"{100 * value:.0f} %" for name, value in closed.items()}
    differences = summary["paired"][summary["best"]]
    assert abs(objectives["static"] - objectives["adaptive"]) == pytest.approx(
        max(difference["mean"] for difference in differences.values())
    )
    with (tmp_path / "first" / "episodes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    seeds = [(row["policy"], row["seed"]) for row in rows]
    assert seeds == [(name, str(10000 + k)) for name in ("static", "adaptive") for k in range(8)]
    static = [float(row["objective"]) for row in rows if row["policy"] == "static"]
    assert np.mean(static) == pytest.approx(objectives["static"], rel=1e-12)
    config = json.loads((tmp_path / "first" / "config.json").read_text())
    assert config["config"]["steps"] == 40 and config["config"]["policies"] == ["static", "adaptive"]
    assert set(config["versions"]) == {"gpualloc_env", "python", *PACKAGES}

    compare(tmp_path / "second", *arguments)
    for name in (
        "summary.json",
        "episodes.csv",
        "comparison.csv",
        "comparison.md",
        "comparison.png",
        "comparison.svg",
    ):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


ONE_QUEUE = """
steps = 20
[[agents]]
name = "only"
model_mb = 0
min_share = 1.0
throughput_rps = 10
[traffic]
law = "constant"
rates_rps = [20]
"""


@pytest.mark.parametrize("bound", ["if-cheap", "never"])
def test_a_scenario_without_headroom_shows_none(bound, tmp_path):
    # Algorithm 1 gives all to the only agent, which always has work: nobody can do better.
    path = tmp_path / "one.toml"
    path.write_text(ONE_QUEUE)
    summary = compare(tmp_path / "out", "--scenario", str(path), "--policies", "adaptive", "--bound", bound)
    policy = summary["policies"]["adaptive"]
    assert policy["headroom_closed"] is None
    known = pytest.approx(policy["objective"]["mean"]) if bound == "if-cheap" else None
    assert summary["bound"]["mean"] == known
    assert "headroom" not in (tmp_path / "out" / "comparison.md").read_text()


@pytest.mark.slow
def test_a_second_comparison_replaces_the_first_and_leaves_other_files(tmp_path):
    out = tmp_path / "out"
    compare(out, "--scenario", "paper", "--policies", "static", "adaptive", "--episodes", "1")
    (out / "notes.md").write_text("mine")
    compare(out, "--scenario", "paper", "--policies", "round-robin", "--episodes", "1")
    assert {path.name for path in out.iterdir()} == {*ENTRIES, "notes.md"}
    assert {path.name for path in (out / "tensorboard").iterdir()} == {"1 round-robin", "comparison"}


def test_all_stands_for_every_baseline():
    config = CompareConfig(policies=("all", str(PRETRAINED / "ppo-mpc-priced-magentic")), reference="cmu")
    contest = Contest.of(config, "serverless", status_console(), skip_misfits=False)
    assert [each.name for each in contest.contestants] == [*POLICIES, "ppo-mpc-priced-magentic"]


def test_metrics_without_requests_are_left_out_of_the_mean():
    assert mean_metrics([{"latency": 2.0}, {"latency": float("nan")}]) == {"latency": 2.0}
    assert np.isnan(mean_metrics([{"latency": float("nan")}])["latency"])
    assert np.isnan(interval([np.nan]).mean)


@pytest.mark.parametrize("count", [2, 3, 10, 100])
def test_intervals_hold_the_mean(count):
    values = np.random.default_rng(count).exponential(size=count)
    mean, low, high = interval([*values, np.nan])
    assert low < mean < high and mean == pytest.approx(values.mean())
    assert interval(np.full(count, 0.1)) == pytest.approx((0.1, 0.1, 0.1))


def test_interval_of_many_episodes_is_the_normal_one():
    values = np.random.default_rng(0).normal(10.0, 3.0, size=400)
    _, low, high = interval(values)
    # ± 1.96 · 3 / √400
    assert (high - low) / 2 == pytest.approx(0.294, rel=0.1)


def test_runs_of_the_same_name_are_kept_apart(tmp_path):
    a, b = tmp_path / "a" / "ppo", tmp_path / "b" / "ppo"
    assert named([str(a)]) == {"ppo": str(a)}
    assert named(["static", str(a), str(b)]) == {"static": "static", "a/ppo": str(a), "b/ppo": str(b)}
    ours = {"ppo": "x/ppo-serverless", "ppo-bursty/seed-0": "x/ppo-bursty/seed-0.npz"}
    assert named(ours.values(), "serverless") == ours
    assert list(named(["x/ppo", "x/ppo-serverless"], "serverless")) == ["ppo", "ppo-serverless"]
    static = tmp_path / "static"
    assert list(named(["static", str(static)])) == ["static", f"{tmp_path.name}/static"]


def test_a_directory_of_several_seeds_is_called_by_its_kind_where_it_was_trained(tmp_path):
    runs, single = tmp_path / "ppo-serverless", tmp_path / "mine-serverless"
    for run in (runs / "seed-0", runs / "seed-1", single):
        run.mkdir(parents=True)
        config = {"config": {"scenario": "serverless", "allocator": "ppo-shared"}}
        (run / "config.json").write_text(json.dumps(config))
    shared = PRETRAINED / "linear-cluster-cluster-small"
    for given, scenario, name in (
        (runs, "serverless", "ppo-shared"),
        (runs / "seed-1", "serverless", "ppo-shared/seed-1"),
        (runs, "bursty", "ppo-serverless"),
        (single, "serverless", "mine"),
        (shared, "cluster-small", "linear-cluster"),
        (shared / "seed-0.npz", "cluster-small", "linear-cluster/seed-0"),
    ):
        assert list(named([str(given)], scenario)) == [name]
    shutil.copytree(runs, tmp_path / "others")
    both = [str(runs), str(tmp_path / "others")]
    assert list(named(both, "serverless")) == ["ppo-serverless", "others"]


@pytest.fixture
def log(monkeypatch, tmp_path):
    """A log of 300 s with a request a second, in place of a file."""
    times = np.arange(300.0)
    tokens = np.tile([1, 2, 3], 100)
    stored = Log(tmp_path / "log.csv", times, tokens / 2, prompt_tokens=tokens)
    monkeypatch.setattr("gpualloc_env.traces.formats.read_log", lambda path, time_unit=None: stored)
    return str(stored.path)


def test_every_window_of_a_log_is_played_once(log, tmp_path, capsys):
    scenario = load_scenario("trace", trace=log, steps=2, split="eval")
    windows = scenario.windows.episodes
    arguments = ("--scenario", "trace", "--trace", log, "--steps", "2", "--policies", "static")
    summary = compare(tmp_path / "out", *arguments, "--episodes", "100000")
    assert summary["episodes"] == windows > 1
    message = capsys.readouterr().err
    assert scenario.windows.accounting in message and f"has {windows} windows" in message
    arrived = summary["policies"]["static"]["metrics"]["arrived"] * windows
    assert arrived == pytest.approx(played(scenario)[:, :-1].sum())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policies", "nonsense"], "unknown policy 'nonsense'"),
        (["--policies", "static", "static"], "'static' is given 2 times"),
        (["--policies"], "no policies"),
        (["--scenario", "servrless"], "did you mean 'serverless'?"),
        (["--scenario", "trace"], "give its path"),
        (["--scenario", "magentic", "--trace", __file__], "no column 'session'"),
        (["--split", "eval"], "split='eval' has no meaning"),
        (["--episodes", "0"], "episodes must be at least 1, got 0"),
        (["--load", "nan"], "load = nan: input should be a finite number"),
    ],
)
def test_mistakes_end_with_one_line(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        compare(tmp_path / "out", *arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_directory_of_something_else_is_refused(tmp_path, capsys):
    for name in ("model.zip", "config.json"):
        (tmp_path / name).write_text("mine")
    for out in (tmp_path, tmp_path / "model.zip", tmp_path / "model.zip" / "below"):
        with pytest.raises(SystemExit) as stop:
            compare(out, *PAPER)
        assert stop.value.code == 2 and str(tmp_path) in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "model.zip": "mine",
        "config.json": "mine",
    }


def test_nothing_is_left_of_a_comparison_that_fails(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(training.compare, "write_json", full)
    with pytest.raises(SystemExit):
        compare(tmp_path / "deep" / "out", *PAPER)
    assert not any(tmp_path.iterdir())


SUMMARY = ("summary.json", "config.json", "heatmap.png", "heatmap.svg")
FEW = {name: SCENARIOS[name] for name in ("paper", "fleet", "trace")}
few_or_all = pytest.mark.parametrize(
    "registered",
    [pytest.param(FEW, id="few"), pytest.param(SCENARIOS, id="all", marks=pytest.mark.slow)],
)


@few_or_all
def test_all_scenarios_are_compared_in_one_command(registered, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training.compare, "SCENARIOS", registered)
    load_policies = contestants.load_policies

    def trained_for_four(name, scenario):
        if name == "my-ppo" and len(scenario.agents) != 4:
            raise AgentsError("my-ppo was trained for 4 agents")
        return load_policies("adaptive" if name == "my-ppo" else name, scenario)

    monkeypatch.setattr(contestants, "load_policies", trained_for_four)
    out = tmp_path / "out"
    arguments = ("--policies", "static", "my-ppo", "--steps", "8", "--episodes", "2")
    summary = compare(out, "--scenario", "all", *arguments)
    unlogged = [name for name, scenario in registered.items() if scenario.trace is None]
    assert list(summary["scenarios"]) == unlogged
    written = {"summary.json", "config.json", "heatmap.png", "heatmap.svg"}
    assert {path.name for path in out.iterdir()} == {*unlogged, *written}
    for name in unlogged:
        assert sorted(path.name for path in (out / name).iterdir()) == sorted(ENTRIES)
        assert json.loads((out / name / "summary.json").read_text()) == summary["scenarios"][name]
    printed = capsys.readouterr()
    assert "Without trace, which replays a request log" in printed.err
    assert "fleet without my-ppo: my-ppo was trained for 4 agents" in printed.err
    assert set(summary["scenarios"]["fleet"]["policies"]) == {"static"}
    assert "J by scenario" in printed.out
    compare(out, "--scenario", "all", *arguments)


def test_policies_that_can_play_no_scenario_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training.compare, "SCENARIOS", {"serverless": SCENARIOS["serverless"]})
    words = ["--scenario", "all", "--policies", "lru", "--episodes", "1", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        run_command(main, CompareConfig, words)
    error = capsys.readouterr().err.splitlines()[-1]
    assert "none of lru can play any of serverless" in error and not list(tmp_path.iterdir())


@few_or_all
def test_all_scenarios_include_the_log_that_is_given(registered, log, tmp_path, monkeypatch):
    monkeypatch.setattr(training.compare, "SCENARIOS", registered)
    arguments = ("--trace", log, "--policies", "static", "--steps", "2", "--episodes", "1")
    summary = compare(tmp_path / "out", "--scenario", "all", *arguments)
    assert list(summary["scenarios"]) == list(registered)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_baseline_plays_every_scenario_to_its_end_and_no_request_is_lost(
    name, policy, scenario_arguments
):
    scenario = load_scenario(**scenario_arguments[name])
    batch = rollout(POLICIES[policy], scenario, episodes=2, seed=0, record=True)
    history, arrived = batch.history, batch.inflows[: scenario.steps].sum(axis=0)
    served = history["served"].sum(axis=1)
    assert served + history["queue"][:, -1] == pytest.approx(arrived, rel=1e-6, abs=1e-9)
    # What was finished in the last step reaches its next agent after the end.
    routed = history["served"][:, :-1].sum(axis=1) @ scenario.routing_matrix if scenario.routing else 0
    if scenario.service == "fluid":
        assert history["arrivals"].sum(axis=1) + routed == pytest.approx(arrived, rel=1e-6, abs=1e-9)
    assert np.isfinite(objectives(batch)).all()


def test_the_overview_has_a_column_for_each_policy_and_leaves_gaps():
    x, y = ({"label": name, "objective": {"mean": 1.0, "ci95": [1.0, 1.0]}} for name in "xy")
    summaries = {"a": {"policies": {"x": x}}, "b": {"policies": {"x": x, "y": y}}}
    assert overview(summaries) == [
        {"scenario": "a", "x": "1.000", "y": ""},
        {"scenario": "b", "x": "1.000", "y": "1.000"},
    ]

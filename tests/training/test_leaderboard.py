"""The leaderboard as a command, and whether its verdicts tell real policies apart."""

import json

import joblib
import numpy as np
import pytest

from baselines import POLICIES
from gpualloc_env.metrics import objectives
from gpualloc_env.scenario.loading import load_scenario
from training.artifacts import contestants
from training.artifacts.policies import AgentsError
from training.cli import run as run_command
from training.evaluation.evaluate import rollout
from training.evaluation.statistics import episodes_needed
from training.evaluation.verdicts import Entry, verdict
from training.leaderboard import FILES, LeaderboardConfig, main

SHORT = """
steps = 20
[[agents]]
name = "quick"
model_mb = 0
throughput_rps = 50
kappa = 0.5
[[agents]]
name = "slow"
model_mb = 1000
throughput_rps = 20
[platform]
reallocation_s = 0.1
[traffic]
rates_rps = [10, 5]
"""


@pytest.fixture
def short(tmp_path):
    path = tmp_path / "short.toml"
    path.write_text(SHORT)
    return str(path)


def lead(out, *arguments):
    run_command(main, LeaderboardConfig, [*arguments, "--workers", "1", "--out", str(out)])
    return json.loads((out / "leaderboard.json").read_text(), parse_constant=pytest.fail)["scenarios"]


@pytest.mark.slow
def test_a_leaderboard_has_every_policy_and_is_the_same_when_run_again(short, tmp_path, capsys):
    arguments = ("--scenarios", short, "paper", "--episodes", "6")
    first = lead(tmp_path / "first", *arguments)
    assert list(first) == [short, "paper"] and sorted(
        path.name for path in (tmp_path / "first").iterdir()
    ) == sorted(FILES)
    for scenario in first.values():
        assert set(scenario["policies"]) == set(POLICIES)
        for name, policy in scenario["policies"].items():
            low, high = policy["objective"]["ci95"]
            assert low <= policy["objective"]["mean"] <= high
            assert scenario["bound"]["mean"] <= policy["objective"]["mean"], name
            assert policy["kind"] == "online"
        adaptive = scenario["policies"]["adaptive"]
        assert adaptive["headroom_closed"] == 0 and adaptive["against_adaptive"] == "ties"
        best = scenario["policies"][scenario["best_baseline"]]
        assert best["objective"]["mean"] == min(p["objective"]["mean"] for p in scenario["policies"].values())
        assert best["against_best_baseline"] == "ties"
    # The episodes of constant traffic are all alike.
    assert first["paper"]["episodes"] == 1 and first[short]["episodes"] == 6
    assert "paper: one episode, all are alike, bound 21.45" in capsys.readouterr().out
    lead(tmp_path / "second", *arguments)
    for name in FILES:
        if name != "config.json":
            assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_learned_and_privileged_policies_are_labelled(short, tmp_path, monkeypatch, capsys):
    load_policies = contestants.load_policies

    def five_seeds(name, scenario):
        if name != "runs/ppo":
            return load_policies(name, scenario)
        if len(scenario.agents) != 2:
            raise AgentsError("runs/ppo was trained for 2 agents")
        return [lambda view, k=k: (0.9 - 0.01 * k) * POLICIES["queue-aware"](view) for k in range(5)]

    monkeypatch.setattr(contestants, "load_policies", five_seeds)
    arguments = (
        "--scenarios",
        short,
        "paper-dominance",
        "--policies",
        "adaptive",
        "runs/ppo",
        "clairvoyant",
    )
    scenarios = lead(tmp_path / "out", *arguments, "--episodes", "3")
    policies = scenarios[short]["policies"]
    assert {name: policy["kind"] for name, policy in policies.items()} == {
        "adaptive": "online",
        "ppo": "learned",
        "clairvoyant": "privileged",
    }
    assert policies["ppo"]["training_seeds"] == 5
    assert scenarios[short]["best_baseline"] == "adaptive"
    bound, found = scenarios[short]["bound"]["mean"], policies["clairvoyant"]["objective"]["mean"]
    assert bound <= found <= min(policies[name]["objective"]["mean"] for name in ("adaptive", "ppo"))
    assert (tmp_path / "out" / "profiles.png").exists()
    assert "paper-dominance without ppo: runs/ppo was trained for 2 agents" in capsys.readouterr().err


def test_no_more_processes_are_started_than_are_asked_for(short, tmp_path, monkeypatch):
    asked = []

    class Watched(joblib.Parallel):
        def __init__(self, n_jobs, **settings):
            asked.append(n_jobs)
            super().__init__(n_jobs=n_jobs, **settings)

    monkeypatch.setattr(joblib, "Parallel", Watched)
    lead(
        tmp_path / "out",
        "--scenarios",
        short,
        "--policies",
        "adaptive",
        "clairvoyant",
        "--workers",
        "1",
        "--episodes",
        "2",
    )
    assert set(asked) == {1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policies", "static"], "policies must include 'adaptive'"),
        (["--scenarios", "servrless"], "did you mean 'serverless'?"),
        (["--scenarios", "trace"], "give its path"),
        (["--episodes", "0"], "episodes must be at least 1, got 0"),
        (["--policies", "adaptive", "nonsense"], "unknown policy 'nonsense'"),
    ],
)
def test_mistakes_end_with_one_line(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        lead(tmp_path / "out", "--scenarios", "steady", "--episodes", "1", *arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("policy", ["adaptive", pytest.param("receding-horizon", marks=pytest.mark.slow)])
def test_two_percent_worse_shares_are_told_apart_with_as_many_episodes_as_promised(policy):
    scenario, decide = load_scenario("serverless"), POLICIES[policy]
    pair = (decide, lambda view: 0.98 * decide(view))
    whole, less = (objectives(rollout(each, scenario, 600, 20_000, record=False)) for each in pair)
    needed = episodes_needed(less - whole, (less - whole).mean(), comparisons=1)
    assert needed <= LeaderboardConfig.episodes
    told = [
        verdict(
            Entry("less", "online", less[None, part], {}), Entry("whole", "online", whole[None, part], {}), 1
        )[0]
        for part in (slice(k, k + needed) for k in range(0, 600 - needed, needed))
    ]
    # Four in five were promised.
    assert np.mean([each == "loses" for each in told]) >= 0.7 and "wins" not in told


@pytest.mark.slow
def test_servers_of_calls_have_a_bound_and_headroom_too(tmp_path):
    policies = ("adaptive", "static", "receding-horizon-batch")
    arguments = ("--scenarios", "team", "llm", "--steps", "60", "--episodes", "3", "--policies", *policies)
    for scenario in lead(tmp_path / "out", *arguments).values():
        bound = scenario["bound"]["mean"]
        assert all(bound < policy["objective"]["mean"] for policy in scenario["policies"].values())
        assert 0 < scenario["policies"]["receding-horizon-batch"]["headroom_closed"] < 1
        assert scenario["policies"]["adaptive"]["metrics"]["ttft_mean_s"] > 0

"""Clusters in the commands that compare policies: the same episodes, metrics, tables and files."""

import json

import numpy as np
import pytest

import training.compare as compare
import training.leaderboard as leaderboard
from baselines import CLUSTER_POLICIES, DEFAULTS, fresh, policy_for
from baselines.cluster import Placed
from gpualloc_env import evaluate, load_scenario
from gpualloc_env.cluster_env import GPUClusterEnv
from training.artifacts.policies import AgentsError, load_policy, named
from training.cli import run
from training.evaluation.evaluate import evaluate as evaluated

OWN = """
import numpy as np

def residents(view):
    return view.resident / np.maximum(1, view.resident.sum(axis=0))

def blind(observation):
    return np.ones((8, 4))
"""


def test_a_comparison_of_a_cluster_has_its_metrics_its_tables_and_its_pictures(tmp_path, capsys):
    out, policies = tmp_path / "out", ["popularity", "lru+proportional-fair", "hierarchical"]
    words = ["--scenario", "cluster-small", "--policies", *policies, "--steps", "40", "--episodes", "3"]
    run(compare.main, compare.CompareConfig, [*words, "--out", str(out)])
    shown = capsys.readouterr().out
    assert "What calls met, and what stood where" in shown and "J − J of hierarchical" in shown
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["policies"]) == policies
    for each in summary["policies"].values():
        metrics = each["metrics"]
        assert sum(metrics[f"{met}_calls"] for met in ("hot", "woken", "cold")) == pytest.approx(1)
        assert 0 < metrics["gpu_memory_held"] < 1 and 0 < metrics["host_memory_held"] < 1
    assert (out / "comparison.png").stat().st_size > 10_000 and any((out / "tensorboard").iterdir())
    # The same episode step by step in the environment.
    env = GPUClusterEnv("cluster-small", steps=40)
    decide = fresh(policy_for("popularity", env.scenario))
    env.reset(seed=10_001)
    for _ in range(40):
        env.step(decide(env.view))
    lines = (out / "episodes.csv").read_text().splitlines()
    played = dict(zip(lines[0].split(","), lines[2].split(","), strict=True))
    own = env.episode_metrics()
    assert played["policy"] == "popularity" and played["seed"] == "10001"
    for name in ("objective", "hot_calls", "evictions", "cost_usd", "gpu_memory_held"):
        assert float(played[name]) == pytest.approx(own[name], rel=1e-12), name


def test_a_leaderboard_plays_both_kinds_each_with_its_own_baselines_and_algorithm_1(tmp_path):
    words = ["--scenarios", "cluster-small", "paper", "--steps", "20", "--episodes", "3", "--workers", "1"]
    run(leaderboard.main, leaderboard.LeaderboardConfig, [*words, "--out", str(tmp_path / "out")])
    boards = json.loads((tmp_path / "out" / "leaderboard.json").read_text())["scenarios"]
    assert set(boards["cluster-small"]["policies"]) == set(CLUSTER_POLICIES)
    assert set(boards["paper"]["policies"]) == set(DEFAULTS)
    for name, algorithm_1 in (("cluster-small", "hierarchical"), ("paper", "adaptive")):
        policies, bound = boards[name]["policies"], boards[name]["bound"]["mean"]
        assert policies[algorithm_1]["headroom_closed"] == 0
        assert all(bound <= each["objective"]["mean"] for each in policies.values())


def test_another_policy_splits_the_gpus_below_a_placement():
    scenario = load_scenario("cluster-small")
    policy = policy_for("hierarchical+autoscaler", scenario)
    assert isinstance(policy, Placed) and policy.lower is DEFAULTS["autoscaler"]
    assert policy.place is CLUSTER_POLICIES["hierarchical"].place
    assert named(["lru+autoscaler", "lru"], scenario.key) == {
        "lru+autoscaler": "lru+autoscaler",
        "lru": "lru",
    }
    assert policy_for("autoscaler", scenario) is not policy_for("autoscaler", "serverless")


def test_policies_of_the_other_kind_are_refused_before_anything_is_played(tmp_path, monkeypatch):
    (tmp_path / "own_cluster.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    cluster, pool = load_scenario("cluster-small", steps=10), load_scenario("serverless")
    for name, scenario, message in (
        ("static", cluster, "policy 'static' is one for one pool of GPUs.*give some of spread, packed"),
        ("spread", pool, "policy 'spread' is one for clusters.*give some of static"),
        ("hierarchical+cmu", pool, "is one for clusters"),
        ("ppo-shared-serverless/seed-0.npz", cluster, "trained for one pool of GPUs.*has nodes"),
        ("own_cluster:blind", cluster, "name its argument `view`"),
    ):
        with pytest.raises(AgentsError, match=message):
            load_policy(name, scenario)
    with pytest.raises(
        ValueError, match=r"'nobody' cannot split .* below 'lru'.*give lru\+ and one of static"
    ):
        load_policy("lru+nobody", cluster)
    own = load_policy("own_cluster:residents", cluster)
    from own_cluster import residents  # pyright: ignore

    ours = evaluate(residents, cluster, 3)["objective"]
    assert ours == pytest.approx(np.mean(evaluated("own", own, cluster, 3, 10_000).objective), rel=1e-12)

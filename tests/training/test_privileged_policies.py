"""Policies that know the future, beside those that do not."""

import json

import pytest

from gpualloc_env import load_scenario
from training import burst_figure, leaderboard
from training.artifacts.policies import kind_of, load_policy
from training.compare import CompareConfig, main
from training.evaluation.evaluate import evaluate
from training.reporting.report import best, tables


@pytest.mark.slow
def test_a_comparison_plays_the_clairvoyant_and_labels_it(tmp_path, capsys):
    policies = ("clairvoyant", "static", "adaptive")
    main(CompareConfig(policies=policies, steps=12, episodes=2, out=tmp_path / "out"))
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    kinds = {name: each["kind"] for name, each in found["policies"].items()}
    assert kinds == {"clairvoyant": "privileged", "static": "online", "adaptive": "online"}
    means = {name: each["objective"]["mean"] for name, each in found["policies"].items()}
    assert means["clairvoyant"] < min(means["static"], means["adaptive"])
    assert found["best"] != "clairvoyant"
    assert "(knows the" in capsys.readouterr().out


def test_the_best_is_one_that_does_not_know_the_future():
    scenario = load_scenario("steady", steps=5)
    played = [
        evaluate(name, load_policy("static", scenario), scenario, 2, 0, kind=kind)
        for name, kind in (("seer", "privileged"), ("plain", "online"))
    ]
    assert best(played).policy == "plain" and best(played[:1]).policy == "seer"
    rows = next(iter(tables(played).values()))
    assert [row["policy"] for row in rows] == ["seer (knows the future)", "plain"]


def test_a_figure_shows_the_clairvoyant(tmp_path):
    config = burst_figure.BurstFigureConfig(
        ("static", "clairvoyant"), steps=10, episodes=1, out=tmp_path / "burst.png"
    )
    burst_figure.main(config)
    assert config.out.is_file()


def test_clusters_are_refused_before_anything_is_played(tmp_path, monkeypatch):
    monkeypatch.setattr("training.artifacts.contestants.evaluate", None)
    out = tmp_path / "out"
    for refused in (
        lambda: main(CompareConfig(scenario="cluster-small", policies=("lru", "clairvoyant"), out=out)),
        lambda: leaderboard.main(
            leaderboard.LeaderboardConfig(
                scenarios=("cluster-small",), policies=("hierarchical", "clairvoyant"), out=out
            )
        ),
    ):
        with pytest.raises(ValueError, match="is a cluster, and a schedule"):
            refused()
    assert not any(tmp_path.iterdir())


def test_kinds():
    kinds = [kind_of(name) for name in ("static", "clairvoyant", "a.npz")]
    assert kinds == ["online", "privileged", "learned"]
    with pytest.raises(ValueError, match="'clairvoyant' knows the future: it is made for a set of episodes"):
        load_policy("clairvoyant", load_scenario("steady"))

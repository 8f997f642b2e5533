"""What a comparison writes and prints where names, metrics, figures or seeds are unusual."""

import json
import shutil

import numpy as np
import pytest

import training.compare
import training.leaderboard
from baselines import DEFAULTS
from training.cli import call, run
from training.compare import ENTRIES, CompareConfig, main
from training.export import ExportConfig
from training.export import main as export
from training.leaderboard import LeaderboardConfig

NAMES = """
steps = 20
[[agents]]
name = "a_1"
model_mb = 0
throughput_rps = 50
[[agents]]
name = "b"
model_mb = 1000
throughput_rps = 20
[traffic]
rates_rps = [10, 5]
"""


def compare(out, **changes):
    main(CompareConfig(**{"steps": 20, "episodes": 3, "out": out, **changes}))
    return json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)


@pytest.fixture
def idle(monkeypatch):
    """A baseline that gives nobody a share: it serves nothing, and its latency percentiles have no value."""
    monkeypatch.setitem(DEFAULTS, "static", lambda view: np.zeros_like(view.queue))


def test_a_policy_that_serves_nothing_has_dashes_and_the_command_goes_on(idle, tmp_path, capsys):
    summary = compare(tmp_path / "out", policies=("static", "adaptive"))
    assert summary["policies"]["static"]["metrics"]["throughput_rps"] == 0
    assert any(value is None for value in summary["policies"]["static"]["metrics"].values())
    printed = capsys.readouterr()
    assert "nan" not in printed.out and "warning" not in printed.err
    assert (tmp_path / "out" / "comparison.png").exists()


def test_a_policy_that_serves_nothing_stands_alone(idle, tmp_path):
    compare(tmp_path / "out", policies=("static",))
    assert (tmp_path / "out" / "comparison.png").exists()


def test_a_figure_that_fails_costs_a_warning_and_not_the_numbers(tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(training.compare, "draw", broken)
    compare(tmp_path / "out", policies=("static",))
    assert "warning: without comparison.png, which could not be drawn: no fonts" in capsys.readouterr().err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {*ENTRIES} - {"comparison.png", "comparison.svg"}
    # The next comparison replaces it all the same.
    monkeypatch.undo()
    compare(tmp_path / "out", policies=("static",))
    assert (tmp_path / "out" / "comparison.png").exists()


def test_figures_of_a_leaderboard_that_fail_cost_a_warning(tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(training.leaderboard, "draw_headroom", broken)
    config = LeaderboardConfig(scenarios=("paper",), policies=("adaptive",), out=tmp_path / "out", workers=1)
    training.leaderboard.main(config)
    assert "warning: without headroom.png" in capsys.readouterr().err
    assert (tmp_path / "out" / "leaderboard.json").exists() and (tmp_path / "out" / "power.png").exists()


def test_names_are_shown_as_they_are(tmp_path, capsys):
    scenario = tmp_path / "cost_$5_vs_$6.toml"
    scenario.write_text(NAMES)
    compare(tmp_path / "exp[v2]", scenario=str(scenario), policies=("static", "adaptive"))
    printed = capsys.readouterr()
    assert "exp[v2]" in printed.out and "warning" not in printed.err
    assert (tmp_path / "exp[v2]" / "comparison.png").exists()


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (None, "held-out episode"),
        pytest.param("train", "training window", marks=pytest.mark.slow),
        pytest.param("all", "of the whole log", marks=pytest.mark.slow),
    ],
)
def test_captions_say_what_was_played(split, words, azure_log, tmp_path, monkeypatch):
    titles = []
    real = training.reporting.figures.title
    monkeypatch.setattr(
        "training.reporting.figures.title", lambda *given: titles.append(real(*given)) or titles[0]
    )
    compare(tmp_path / "out", scenario="trace", trace=azure_log, split=split, policies=("static",))
    assert words in titles[0] and ("held-out" in titles[0]) == (split is None)


def test_one_episode_of_a_varying_scenario_has_no_interval(tmp_path, capsys):
    summary = compare(tmp_path / "out", policies=("static", "adaptive"), episodes=1)
    assert summary["policies"]["static"]["objective"]["ci95"] == [None, None]
    assert "nan" not in capsys.readouterr().out


@pytest.fixture
def several(trained_run, tmp_path):
    """A directory as `--seeds 2` makes it."""
    for seed in (0, 1):
        shutil.copytree(trained_run, tmp_path / "several" / f"seed-{seed}")
    return tmp_path / "several"


@pytest.mark.slow
def test_a_directory_of_several_seeds_is_one_policy(several, tmp_path, capsys):
    summary = compare(tmp_path / "out", policies=("adaptive", str(several)))
    alone = compare(tmp_path / "alone", policies=(str(several / "seed-0"),))
    kind = json.loads((several / "seed-0" / "config.json").read_text())["config"]["allocator"]
    learned = summary["policies"][kind]
    assert learned["kind"] == "learned"
    # Both seeds are the same run here.
    one = alone["policies"]["several/seed-0"]
    assert learned["objective"]["mean"] == pytest.approx(one["objective"]["mean"])
    assert learned["metrics"] == pytest.approx(one["metrics"])
    assert f"{kind} (2 seeds)" in capsys.readouterr().out
    assert any((tmp_path / "out" / "tensorboard").glob(f"? {kind} (2 seeds)"))


def test_export_asks_for_one_of_several_seeds(several, tmp_path, capsys):
    with pytest.raises(SystemExit):
        call(export, ExportConfig(several, out=tmp_path / "a.npz"))
    error = capsys.readouterr().err
    assert "holds several training seeds" in error and str(several / "seed-1") in error
    assert not (tmp_path / "a.npz").exists()


def test_tables_are_printed_after_the_results_are_written(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        training.compare, "print_tables", lambda *_: seen.append((tmp_path / "out" / "summary.json").exists())
    )
    run(
        main,
        CompareConfig,
        ["--policies", "static", "--steps", "5", "--episodes", "2", "--out", f"{tmp_path}/out"],
    )
    assert seen and all(seen)

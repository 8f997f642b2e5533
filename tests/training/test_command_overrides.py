"""Every command changes a scenario by the same options, and is written down with them."""

import json
from dataclasses import asdict, fields

import pytest
import tyro

from gpualloc_env import Overrides, load_scenario
from training import burst_figure, compare, export, fit, leaderboard, plan, study, train, tune
from training.cli import call, options, run
from training.evaluation.held_out import held_out_among_others, held_out_scenario
from training.fitting.fitted_scenario import write_scenario

CONFIGS = {
    "train": train.TrainConfig,
    "compare": compare.CompareConfig,
    "leaderboard": leaderboard.LeaderboardConfig,
    "tune": tune.TuneConfig,
    "study": study.StudyConfig,
    "burst_figure": burst_figure.BurstFigureConfig,
    "fit": fit.FitConfig,
    "plan": plan.PlanConfig,
}
NEEDED = {
    "burst_figure": ("--policies", "static"),
    "fit": ("log.csv", "--out", "mine.toml"),
    "plan": ("log.csv",),
}
ASKED = (
    "--steps",
    "7",
    "--dt",
    "0.5",
    "--load",
    "1.2",
    "--agents",
    "3",
    "--trace",
    "a.csv",
    "--split",
    "all",
)
WORDS = (*ASKED, "--objective", "slo", "2")
SHORT = {"steps": 12, "num_envs": 8, "rollout_steps": 16, "batch_size": 64, "total_steps": 128}
SHORT |= {"validation_episodes": 2, "progress": False}


@pytest.mark.parametrize("command", CONFIGS)
def test_every_command_has_the_same_options_by_the_same_names(command):
    config = tyro.cli(CONFIGS[command], args=[*NEEDED.get(command, ()), *WORDS])
    assert {name: str(value) for name, value in config.changes.items()} == {
        "steps": "7",
        "dt": "0.5",
        "load": "1.2",
        "agents": "3",
        "trace": "a.csv",
        "split": "all",
        "objective": "{'slo': 2.0}",
    }
    assert {field.name for field in fields(Overrides)} <= set(asdict(config))


def test_options_repeat_what_was_asked_for():
    config = tyro.cli(train.TrainConfig, args=[*WORDS, "--hidden", "8", "8", "--no-progress"])
    words = options(asdict(config))
    assert tyro.cli(train.TrainConfig, args=words) == config and "--beside" not in words


@pytest.mark.parametrize("command", sorted(set(CONFIGS) - {"fit", "study", "train"}))
def test_a_change_that_no_scenario_can_have_is_refused_before_any_work(command, capsys, tmp_path):
    out = "--out", str(tmp_path / "out")
    with pytest.raises(SystemExit):
        run(globals()[command].main, CONFIGS[command], [*NEEDED.get(command, ()), "--load", "11", *out])
    assert "load = 11.0: input should be less than or equal to 10" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_fit_refuses_changes_to_the_traffic(capsys, azure_log, tmp_path):
    with pytest.raises(SystemExit):
        call(fit.main, fit.FitConfig(azure_log, tmp_path / "mine.toml", load=0.5))
    assert "--load has no meaning where the traffic is fitted to a whole log" in capsys.readouterr().err


def test_a_run_on_other_agents_is_exported_and_compared_as_it_was_trained(tmp_path, capsys):
    run, file = tmp_path / "run", tmp_path / "run.npz"
    train.main(train.TrainConfig(**SHORT, agents=2, load=0.9, objective={"slo": 0.5}, out=run))
    words = "--scenario serverless --steps 12 --load 0.9 --agents 2 --objective slo 0.5"
    assert f"{words} --policies adaptive {run}" in capsys.readouterr().out
    kept = json.loads((run / "config.json").read_text())["config"]
    assert (kept["agents"], kept["load"], kept["objective"], kept["trace"]) == (2, 0.9, {"slo": 0.5}, None)
    manifest = export.export(export.ExportConfig(run, out=file, episodes=2))
    assert manifest.agents == ("coordinator", "nlp")
    assert (
        "--agents 2" in manifest.training["command"] and "--objective slo 0.5" in manifest.training["command"]
    )


def test_held_out_windows_are_the_default_of_a_log(azure_log):
    assert held_out_scenario("trace", trace=azure_log).trace.split == "eval"
    assert held_out_scenario("trace", Overrides(trace=azure_log, split="all")).trace.split == "all"
    # A file may ask for all windows; for those of training it need not ask.
    for written, played in (("all", "all"), ("eval", "eval"), ("train", "eval")):
        own = load_scenario("trace", trace=azure_log, split=written)
        assert held_out_scenario(own).trace.split == played
    assert held_out_scenario(own, split="train").trace.split == "train"
    assert held_out_scenario("steady", Overrides(steps=3)) == load_scenario("steady", steps=3)


def test_windows_kept_for_evaluation_are_not_trained_on(tmp_path, azure_log):
    own = tmp_path / "own.toml"
    write_scenario(own, load_scenario("trace", trace=azure_log, split="eval"), [])
    with pytest.raises(ValueError, match="split = 'eval' is kept for judging what was trained"):
        train.main(train.TrainConfig(**{**SHORT, "scenario": str(own)}, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_of_several_scenarios_a_log_goes_to_those_that_replay_one(azure_log):
    asked = Overrides(trace=azure_log, split="all", steps=5)
    assert held_out_among_others("steady", asked) == load_scenario("steady", steps=5)
    assert held_out_among_others("trace", asked).trace.path == azure_log


def test_a_leaderboard_plays_changed_scenarios(tmp_path):
    config = leaderboard.LeaderboardConfig(
        scenarios=("steady",), policies=("static", "adaptive"), episodes=3, workers=1, out=tmp_path / "board"
    )
    words = ["--steps", "8", "--agents", "2", "--load", "0.5"]
    leaderboard.main(tyro.cli(leaderboard.LeaderboardConfig, args=words, default=config))
    kept = json.loads((tmp_path / "board" / "config.json").read_text())["config"]
    assert (kept["steps"], kept["agents"], kept["load"]) == (8, 2, 0.5)


def test_a_figure_of_a_log_plays_each_window_once(tmp_path, azure_log):
    out = tmp_path / "burst.png"
    asked = {"trace": azure_log, "scenario": "trace", "steps": 10, "out": out}
    burst_figure.main(burst_figure.BurstFigureConfig(("static", "adaptive"), **asked))
    assert out.stat().st_size > 0

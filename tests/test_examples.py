"""The scripts in `examples/` run as they are."""

import pytest
from support.examples import main_of
from support.places import ROOT

from gpualloc_env import load_scenario
from gpualloc_env.batch import Batch


def test_the_allocator_in_a_control_loop(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main = main_of("deploy.py")
    main.__globals__["serve_metrics"] = lambda *_: None
    main(str(ROOT / "training/pretrained/ppo-residual-serverless/seed-0.npz"), "serverless", shadow_steps=5)
    assert "300 steps, 0 fallbacks, 0 errors in the shadow" in capsys.readouterr().out
    assert len((tmp_path / "shadow.jsonl").read_text(encoding="utf-8").splitlines()) == 5


def test_made_up_sessions_play_in_their_scenarios(tmp_path, capsys):
    main = main_of("made_up_sessions.py")
    for out, first in (("a", 3), ("b", 3), ("c", 4)):
        main(tmp_path / out, teams=2, sessions=5, first_seed=first, scenario="magentic")
    assert "2 logs of 5 sessions" in capsys.readouterr().out
    logs = [(tmp_path / out / "4.csv").read_text(encoding="utf-8") for out in "abc"]
    assert logs[0] == logs[1] == logs[2] != (tmp_path / "a" / "3.csv").read_text(encoding="utf-8")
    scenario = load_scenario(tmp_path / "a" / "3.toml", steps=200)
    assert scenario.agents == load_scenario("magentic").agents
    batch = Batch(scenario, 4)
    batch.seed(0)
    batch.reset()
    for _ in range(scenario.steps):
        batch.step(batch.view.share / scenario.platform.gpus)
    assert all(len(batch.tasks(b).agent) for b in range(4))


def test_sessions_are_not_made_up_for_a_scenario_that_plays_none(tmp_path):
    with pytest.raises(SystemExit, match="--scenario team plays no sessions; give magentic"):
        main_of("made_up_sessions.py")(tmp_path / "out", teams=1, sessions=5, first_seed=0, scenario="team")
    assert not (tmp_path / "out").exists()

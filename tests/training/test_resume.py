import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from stable_baselines3 import PPO
from support.places import ROOT
from support.trained_run import interrupt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.cli import call
from training.learning.checkpoint import load
from training.train import TrainConfig, main

KILLS = 10
TINY = {
    "scenario": "serverless",
    "allocator": "ppo",
    "steps": 20,
    "total_steps": 1600,
    "num_envs": 4,
    "rollout_steps": 16,
    "batch_size": 32,
    "epochs": 2,
    "hidden": [8],
    "checkpoint_every": 64,
    "validate_every": 200,
    "validation_episodes": 2,
    "progress": False,
}
WALL_CLOCK = "serverless training: time/fps"


def tiny(out, **changes):
    return TrainConfig(**{**TINY, "hidden": (8,), **changes}, out=out)


def weights(run):
    """Of the model that was chosen, and of the last one with its optimiser."""
    contents = load(run / "checkpoint.pt")
    chosen = PPO.load(run / "model.zip", device="cpu").policy.state_dict()
    moments = contents["optimiser"]["state"]
    return [
        *chosen.values(),
        *contents["policy"].values(),
        *(torch.as_tensor(value) for state in moments.values() for value in state.values()),
    ]


def same(run, other):
    pairs = list(zip(weights(run), weights(other), strict=True))
    return all(torch.equal(a, b) for a, b in pairs)


def curves(run):
    """Every scalar as (step, value), read without TensorBoard's own repairs."""
    events = EventAccumulator(str(run / "tensorboard" / run.name), purge_orphaned_data=False)
    events.Reload()
    return {
        tag: [(scalar.step, scalar.value) for scalar in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag != WALL_CLOCK
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("resume") / "whole"
    main(tiny(out))
    return out


@pytest.fixture
def interrupted(tmp_path):
    """A run that ended within its tenth update, after nine checkpoints."""
    interrupt(tiny(tmp_path / "run"), checkpoints=9)
    return tmp_path / "run"


@pytest.mark.slow
def test_ten_kills_lead_to_the_weights_of_an_uninterrupted_run(tmp_path):
    long = {**TINY, "total_steps": 9_600}
    program = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "support" / "killed_runs.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def train(out, kills, longest):
        command = [*program, str(out), str(kills), str(longest)]
        return subprocess.run(
            command, input=json.dumps(long), capture_output=True, text=True, check=True, env=environment
        ).stdout

    train(tmp_path / "first", 0, 0)
    begun = (tmp_path / "first" / "config.json").stat().st_mtime
    seconds = (tmp_path / "first" / "result.json").stat().st_mtime - begun
    output = train(tmp_path / "killed", KILLS, seconds / 16)
    assert json.loads(output.splitlines()[-1]) == [-signal.SIGKILL] * KILLS + [0]
    assert output.count("Continuing the run") >= 1
    assert same(tmp_path / "first", tmp_path / "killed")
    assert curves(tmp_path / "first") == curves(tmp_path / "killed")
    results = [json.loads((tmp_path / run / "result.json").read_text()) for run in ("first", "killed")]
    assert results[0] == results[1]
    assert not list((tmp_path / "killed").glob(".unfinished-*"))


def test_the_curve_is_one_without_gaps_or_repetitions(whole, interrupted, capsys):
    main(tiny(interrupted))
    assert f"from step {9 * 64}" in capsys.readouterr().out
    there = curves(interrupted)
    assert there == curves(whole)
    assert [step for step, _ in there["serverless training: train/value_loss"]] == list(range(128, 1601, 64))
    assert len(list((interrupted / "tensorboard" / interrupted.name).iterdir())) == 2
    assert same(whole, interrupted)


def test_a_run_interrupted_before_its_first_checkpoint_begins_again(whole, tmp_path):
    interrupt(tiny(tmp_path / "run"), checkpoints=0)
    (tmp_path / "run" / ".unfinished-checkpoint.pt").write_bytes(b"half")
    main(tiny(tmp_path / "run"))
    assert same(whole, tmp_path / "run") and curves(whole) == curves(tmp_path / "run")


def test_a_complete_run_is_left_as_it_is(whole, capsys):
    def times():
        return {path: path.stat().st_mtime_ns for path in whole.rglob("*")}

    before = times()
    main(tiny(whole))
    assert "complete; nothing to do" in capsys.readouterr().out and times() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "holds a run with seed = 0, asked for is 1"),
        ({"hidden": (8, 8)}, "holds a run with hidden = [8], asked for is [8, 8]"),
        ({"seeds": 2}, "holds a single run"),
    ],
)
def test_other_settings_are_refused_by_name(changes, words, whole, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(main, tiny(whole, **changes))
    assert stopped.value.code == 2 and words in capsys.readouterr().err


def test_a_directory_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit):
        call(main, tiny(tmp_path))
    assert "holds no training run (notes.txt)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_that_is_going_on_is_refused(interrupted, capsys):
    program = "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)"
    command = [sys.executable, "-c", f"{program}; print(1, flush=True); time.sleep(60)", str(interrupted)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"1\n"
        try:
            with pytest.raises(SystemExit):
                call(main, tiny(interrupted))
        finally:
            other.kill()
    assert "is going on in another process" in capsys.readouterr().err


def test_a_scenario_that_has_changed_is_refused(interrupted, capsys):
    contents = load(interrupted / "checkpoint.pt")
    batch = contents["environments"][0]["batch"]
    batch.scenario = batch.scenario.model_copy(update={"description": "another"})
    torch.save(contents, interrupted / "checkpoint.pt")
    with pytest.raises(SystemExit):
        call(main, tiny(interrupted))
    assert "is not the one that the run was started with" in capsys.readouterr().err


def test_a_run_that_another_version_began_is_refused(interrupted, capsys):
    contents = load(interrupted / "checkpoint.pt")
    contents["policy"]["renamed"] = contents["policy"].pop("log_std")
    torch.save(contents, interrupted / "checkpoint.pt")
    with pytest.raises(SystemExit):
        call(main, tiny(interrupted))
    assert "another version of this package began this run" in capsys.readouterr().err


@pytest.mark.slow
def test_several_seeds_are_runs_of_their_own(whole, tmp_path, capsys):
    main(tiny(tmp_path / "several", seeds=2))
    names = [path.name for path in sorted((tmp_path / "several").iterdir())]
    assert names == ["seed-0", "seed-1"]
    assert same(whole, tmp_path / "several" / "seed-0")
    assert not same(whole, tmp_path / "several" / "seed-1")
    begun = time.time_ns()
    main(tiny(tmp_path / "several", seeds=3))
    assert capsys.readouterr().out.count("nothing to do") == 2
    changed = {
        path.parent.name
        for path in (tmp_path / "several").glob("*/model.zip")
        if path.stat().st_mtime_ns > begun
    }
    assert changed == {"seed-2"}

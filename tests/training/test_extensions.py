"""What a user's module registers, in a command and its processes."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from support.places import ROOT

import baselines
from gpualloc_env import metrics
from gpualloc_env.extensions import VARIABLE
from training.learning.allocators import kinds

MODULE = """
from gpualloc_env import Scenario, Traffic, metrics
from gpualloc_env.scenario import register
import baselines

register(Scenario(name="calm", traffic=Traffic(rates_rps=(10, 5, 5, 3)), steps=20))
baselines.register("longest-queue", lambda view: (view.queue == view.queue.max(-1, keepdims=True)) * 0.25)
metrics.register("last_queue_requests", lambda batch, b: float(batch.recorded(b)["queue"][-1].sum()))
"""


def leaderboard(folder, extensions):
    command = [sys.executable, "-m", "training.leaderboard", "--scenarios", "calm", "--episodes", "4"]
    command += ["--policies", "longest-queue", "adaptive", "--workers", "2", "--out", "out"]
    environment = {**os.environ, VARIABLE: extensions, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_command_and_its_processes_know_what_a_module_registers(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    done = leaderboard(tmp_path, "mine")
    assert done.returncode == 0, done.stderr
    board = (tmp_path / "out" / "leaderboard.json").read_text()
    assert all(name in board for name in ("calm", "longest-queue", "last_queue_requests"))


@pytest.mark.slow
def test_a_module_that_cannot_be_imported_is_named(tmp_path):
    done = leaderboard(tmp_path, "no_such_module")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith(f"error: {VARIABLE}: cannot import module 'no_such_module', neither from")


def test_what_cannot_be_called_or_named_is_not_registered():
    with pytest.raises(TypeError, match="policy 'x' must be a function of a view, got 3"):
        baselines.register("x", 3)
    with pytest.raises(ValueError, match="no colon, got 'a:b'"):
        baselines.register("a:b", baselines.adaptive)
    with pytest.raises(TypeError, match="metric 'x' must be a function of a batch and an index, got 5"):
        metrics.register("x", 5)
    unknown = replace(kinds.KINDS["ppo-residual"], name="x", table="mine")
    with pytest.raises(ValueError, match="no settings of 'mine'; give as table one of ppo, "):
        kinds.register(unknown)

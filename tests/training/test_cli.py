"""How every command starts and ends: limits, encodings, signals, and at most one line about a mistake."""

import os
import signal
import subprocess
import sys
import time

import pytest
from numba.core.compiler_lock import global_compiler_lock

from training.burst_figure import BurstFigureConfig
from training.burst_figure import main as burst_figure
from training.cli import Terminated, call, run, status_console, terminable, track
from training.compare import CompareConfig
from training.compare import main as compare
from training.ensemble import EnsembleConfig
from training.ensemble import main as ensemble
from training.export import ExportConfig
from training.export import main as export
from training.fit import FitConfig
from training.fit import main as fit
from training.leaderboard import LeaderboardConfig
from training.leaderboard import main as leaderboard
from training.study import StudyConfig
from training.study import main as study
from training.tiers import TiersConfig
from training.tiers import main as tiers
from training.train import TrainConfig
from training.train import main as train
from training.transfer import TransferConfig
from training.transfer import main as transfer
from training.tune import TuneConfig
from training.tune import main as tune
from training.validate import ValidateConfig
from training.validate import main as validate

COMMANDS = {
    "train": (train, TrainConfig),
    "compare": (compare, CompareConfig),
    "leaderboard": (leaderboard, LeaderboardConfig),
    "export": (export, ExportConfig),
    "ensemble": (ensemble, EnsembleConfig),
    "tune": (tune, TuneConfig),
    "study": (study, StudyConfig),
    "fit": (fit, FitConfig),
    "tiers": (tiers, TiersConfig),
    "transfer": (transfer, TransferConfig),
    "validate": (validate, ValidateConfig),
    "burst_figure": (burst_figure, BurstFigureConfig),
}


def refused(capsys, command, *arguments):
    """The one line with which a command ends on the standard error, its status being 2."""
    with pytest.raises(SystemExit) as stopped:
        run(*COMMANDS[command], [*arguments])
    printed = capsys.readouterr()
    assert stopped.value.code == 2 and not printed.out
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("train", ["--learning-rate", "-0.1"], "learning_rate must be above 0, got -0.1"),
        (
            "burst_figure",
            ["--policies", "static", "--out", "burst.xyz"],
            "--out burst.xyz must be a figure's name, such as figure.png",
        ),
        (
            "burst_figure",
            ["--policies", "static", "--out", "absent/burst.png"],
            "there is no folder absent; make it first",
        ),
        ("train", ["--rollout-steps", "1000000000"], "GB; lower rollout_steps or num_envs"),
        ("train", ["--initial-std", "0"], "initial_std must be above 0, got 0.0"),
        ("train", ["--hidden"], "hidden needs the units of at least one layer"),
        (
            "train",
            ["--allocator", "linear-residual", "--hidden", "8"],
            "'linear-residual' has no hidden layers",
        ),
        ("train", ["--hidden", "32", "0"], "hidden must be at least 1, got 0"),
        ("train", ["--batch-size", "1"], "batch_size must be at least 2, got 1"),
        ("train", ["--batch-size", "4", "--shards", "5"], "shards must be at most batch_size = 4, got 5"),
        ("train", ["--shards", "0"], "shards must be at least 1, got 0"),
        ("train", ["--seed", "4294967296"], "seed must be at most 16777214, got 4294967296"),
        ("train", ["--gamma", "1.5"], "gamma must be at most 1, got 1.5"),
        ("train", ["--gae-lambda", "-3"], "gae_lambda must be at least 0, got -3.0"),
        ("train", ["--allocator", "ppo-residul"], "did you mean 'ppo-residual'?"),
        ("train", ["--start-from", "nowhere"], "nowhere holds no finished training run"),
        ("compare", ["--episodes", "100000000"], "GB of memory, and this machine has"),
        ("compare", ["--seed", str(2**40)], "seed must be below 2**39"),
        ("compare", ["--seed", str(2**39 - 1)], "and the last of 100 episodes below 2**39"),
        ("compare", ["--seed", "-1"], "seed must be at least 0, got -1"),
        ("leaderboard", ["--seed", str(2**65)], "seed must be below 2**39"),
        ("transfer", ["--episodes", "1"], "episodes must be at least 2, got 1"),
        ("transfer", ["--scenario", "steady"], "scenario 'steady' has no fluid twin"),
        ("leaderboard", ["--workers", "0"], "workers must be at least 1, got 0"),
        ("burst_figure", ["--policies", "static", "--seed", str(2**39)], "seed must be below 2**39"),
        ("burst_figure", ["--policies", "static", "--seconds", "0"], "seconds must be above 0"),
        ("export", ["run", "--out", "a.npz", "--seed", str(2**40)], "seed must be below 2**39"),
        ("ensemble", ["a.npz", "b.npz", "--out", "c.txt"], "--out c.txt must end in .npz or .onnx"),
        ("ensemble", ["a.npz", "b.npz", "--out", "c.npz"], "a.npz"),
        ("tune", ["--trials", "0"], "trials must be at least 1, got 0"),
        ("study", ["--confirm-seeds", "0"], "confirm_seeds must be at least 1, got 0"),
        ("fit", ["log.csv", "--out", "a.toml", "--draws", "1"], "draws must be at least 2, got 1"),
        ("validate", ["--seed", "-1"], "seed must be at least 0, got -1"),
    ],
)
def test_a_number_out_of_its_limits_ends_with_one_line_and_leaves_nothing(
    command, arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, command, *arguments)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_says_the_limits(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(*COMMANDS[command], ["--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert stopped.value.code == 0
    assert ("at least 0, below 2**39" in shown) == (
        command
        in {"compare", "leaderboard", "export", "ensemble", "fit", "tiers", "transfer", "burst_figure"}
    )
    if command == "train":
        assert "(above 0, at most 1; default: None)" in shown


def test_a_training_that_diverges_ends_with_one_line(capsys):
    def diverged(_):
        raise FloatingPointError("training diverged; lower the learning rate")

    with pytest.raises(SystemExit) as stopped:
        call(diverged, ValidateConfig())
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error == "error: training diverged; lower the learning rate\n"


def test_an_interruption_ends_with_one_line(capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        call(interrupted, ValidateConfig())
    assert stopped.value.code == 130 and capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("number", "stopped"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_waits_for_the_compiler(number, stopped):
    # Where the tests run in the background, interruptions are ignored, and would stay so.
    former = signal.signal(number, signal.default_int_handler)
    compiled, begin = False, time.monotonic()
    try:
        with pytest.raises(stopped), terminable():
            with global_compiler_lock:  # what llvmlite calls back here prints what is raised, and goes on
                signal.raise_signal(number)
                time.sleep(0.2)
                compiled = True
            time.sleep(60)
        assert compiled and time.monotonic() - begin < 30
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, former)


def test_an_ignored_interruption_stays_ignored():
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with terminable():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
            went_on = True
        assert went_on and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, former)


def test_a_terminated_command_removes_what_it_has_not_finished(tmp_path):
    command = [sys.executable, "-m", "training.leaderboard", "--scenarios", "serverless", "--workers", "1"]
    command += ["--policies", "adaptive", "clairvoyant", "--episodes", "500", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".unfinished-*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        try:
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 143 and "terminated" in error and "Traceback" not in error
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_terminated_command_ends_its_idle_processes():
    command = """
import os, signal
from baselines.processes import in_processes
from training.cli import call
from training.validate import ValidateConfig

def main(_):
    in_processes(abs, [-1, -2], 2, None)
    os.kill(os.getpid(), signal.SIGTERM)

call(main, ValidateConfig())
"""
    # Its output ends when the last process that holds it has ended.
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, timeout=60, check=False)
    assert done.returncode == 143 and done.stderr.startswith(b"terminated")


@pytest.mark.slow
def test_an_interruption_of_one_process_alone_says_nothing_of_the_pool():
    command = """
import os, signal, time
from rich.progress import Progress
from gpualloc_env import load_scenario
from training.cli import call
from training.evaluation.headroom import bounds_meanwhile
from training.validate import ValidateConfig

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background

def main(_):
    with Progress(disable=True) as progress:
        with bounds_meanwhile({"serverless": (load_scenario("serverless"), 60)}, 0, 2, progress):
            while not any(task.completed for task in progress.tasks):
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

call(main, ValidateConfig())
"""
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, timeout=60, check=False)
    assert done.returncode == 130 and done.stderr == b"interrupted\n"


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_without_a_minus_sign_prints_what_it_can(encoding, tmp_path):
    command = [sys.executable, "-m", "training.compare", "--policies", "static", "adaptive", "--steps", "5"]
    command += ["--episodes", "3", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0 and b"Results in" in done.stdout and b"Traceback" not in done.stderr
    assert (tmp_path / "out" / "summary.json").exists()


@pytest.mark.slow
def test_a_reader_that_stops_reading_is_no_mistake(tmp_path):
    command = [sys.executable, "-m", "training.compare", "--policies", "static", "--steps", "5"]
    command += ["--episodes", "2", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert b"Traceback" not in error and b"Exception ignored" not in error
    assert (tmp_path / "out" / "summary.json").exists()


def test_progress_without_a_terminal_is_a_line_every_ten_seconds_and_one_at_the_end(capsys, monkeypatch):
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    for _ in track(range(5), "Playing", status_console()):
        time.sleep(0.15)  # longer than a bar waits for
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("(")[0] for line in lines] == [f"Playing: {done} of 5 " for done in (2, 4, 5)]

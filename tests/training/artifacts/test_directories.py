"""Directories that are given as policies or places of a run and hold something else, or damaged files."""

import pytest

from training.artifacts.policies import named
from training.cli import call
from training.compare import CompareConfig
from training.compare import main as compare
from training.train import TrainConfig
from training.train import main as train


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """The directory of a comparison on serverless."""
    out = tmp_path_factory.mktemp("compared") / "mix-serverless"
    compare(CompareConfig(policies=("static",), steps=5, episodes=2, out=out))
    return out


def refusal(main, config, capsys):
    """The one line with which a command refuses what it is asked."""
    with pytest.raises(SystemExit) as stopped:
        call(main, config)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and error.startswith("error: ")
    return error


def test_a_comparison_is_no_policy(comparison, tmp_path, capsys):
    config = CompareConfig(policies=(str(comparison), "adaptive"), episodes=2, out=tmp_path / "out")
    error = refusal(compare, config, capsys)
    assert f"{comparison} holds a comparison and no training run; give a directory" in error
    assert not (tmp_path / "out").exists()
    assert list(named([str(comparison)], "serverless")) == ["mix"]


def test_a_comparison_is_no_run_to_continue(comparison, capsys):
    error = refusal(train, TrainConfig(out=comparison), capsys)
    assert f"{comparison} holds something else than a training run" in error
    assert "its config.json has policies, which this command has not; give another --out" in error
    error = refusal(train, TrainConfig(seeds=2, out=comparison), capsys)
    assert "something else; give another --out for 2 seeds" in error

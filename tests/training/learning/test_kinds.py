"""The registry of learned allocators: one entry makes a kind that every command knows."""

import pytest
import tyro

from gpualloc_env.action_transform import simplex
from gpualloc_env.allocator.allocator import Allocator
from gpualloc_env.scenario.loading import load_scenario
from training.artifacts.policies import load_policy
from training.export import ExportConfig, export
from training.learning.allocators.kinds import KINDS, Kind, help_text, kind_of, register
from training.learning.defaults import default_settings
from training.train import TrainConfig, main

TIMID = Kind(
    "timid", "a perceptron that starts with equal shares", "mlp", lambda _: simplex(4), 0.0, table="ppo"
)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr("training.learning.allocators.kinds.KINDS", dict(KINDS))
    register(TIMID)


def test_a_known_name_is_refused():
    with pytest.raises(ValueError, match="there is an allocator 'ppo' already"):
        register(KINDS["ppo"])


def test_a_network_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="unknown network 'transformer'; give one of mlp, shared"):
        register(Kind("new", "", "transformer", lambda _: simplex(4), 0.0, table="ppo"))


def test_an_unknown_allocator_is_named_with_the_nearest_one():
    with pytest.raises(ValueError, match="unknown allocator 'ppo-residul'; did you mean 'ppo-residual'"):
        kind_of("ppo-residul")
    with pytest.raises(ValueError, match="give one of ppo, ppo-shared, ppo-residual"):
        kind_of("dqn")


def test_the_command_line_shows_every_kind(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(TrainConfig, args=["--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for kind in KINDS.values():
        assert f"`{kind.name}`: {kind.help}" in shown
    assert help_text().count("`: ") == len(KINDS)


def test_a_kind_from_outside_is_trained_exported_and_played(registered, tmp_path):
    assert default_settings("timid", "serverless") == default_settings("ppo", "serverless")
    short = {"steps": 5, "total_steps": 64, "num_envs": 4, "rollout_steps": 16, "batch_size": 32}
    main(TrainConfig(allocator="timid", **short, validation_episodes=2, progress=False, out=tmp_path / "run"))
    export(ExportConfig(tmp_path / "run", out=tmp_path / "a.npz", episodes=2))
    manifest = Allocator.load(tmp_path / "a.npz").manifest
    assert manifest.network["kind"] == "mlp" and manifest.training["config"]["allocator"] == "timid"
    assert load_policy(str(tmp_path / "run"), load_scenario("serverless"))

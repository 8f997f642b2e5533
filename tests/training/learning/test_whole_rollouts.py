"""How long training goes on, and at which learning rate."""

import pytest

import training.learning.learner
from training.learning.checkpoint import load
from training.learning.learner import make_learner, whole_steps, with_defaults
from training.train import TrainConfig, main

SHORT = {"steps": 5, "num_envs": 4, "rollout_steps": 16, "batch_size": 32, "validation_episodes": 2}
SHORT |= {"allocator": "ppo", "progress": False, "learning_rate": 0.01, "epochs": 1}


def rates(monkeypatch, config):
    """The learning rate of every update of a run."""
    seen = []
    real = training.learning.learner.ParallelPPO.train

    def train(model):
        real(model)
        seen.append(model.policy.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(training.learning.learner.ParallelPPO, "train", train)
    main(config)
    return seen


@pytest.mark.parametrize("asked", [250, 256])
def test_the_learning_rate_falls_to_the_end_and_is_never_zero(asked, tmp_path, monkeypatch):
    # Four rollouts of 64 steps: what is left after each, and half a rollout's part for the last.
    seen = rates(monkeypatch, TrainConfig(**SHORT, total_steps=asked, out=tmp_path / "run"))
    assert seen == pytest.approx([0.0075, 0.005, 0.0025, 0.00125])


def test_steps_are_rounded_up_to_whole_rollouts_and_it_is_said(tmp_path, capsys):
    main(TrainConfig(**SHORT, total_steps=250, out=tmp_path / "run"))
    assert "250 steps become 256: training takes whole rollouts of 64" in capsys.readouterr().out
    assert load(tmp_path / "run" / "checkpoint.pt")["learner"]["num_timesteps"] == 256


def test_a_large_rollout_never_trains_at_a_rate_below_zero():
    config = with_defaults(TrainConfig(num_envs=1024, total_steps=200_000), "serverless")
    assert whole_steps(config) >= 200_000 and whole_steps(config) % (1024 * config.rollout_steps) == 0
    small = with_defaults(TrainConfig(**SHORT, total_steps=250), "serverless")
    from gpualloc_env.scenario.loading import load_scenario

    model, _ = make_learner(small, load_scenario("serverless", steps=5))
    assert all(model.lr_schedule(remaining) > 0 for remaining in (1.0, 0.5, 0.0, -0.1))


def test_limits_hold_for_lists_as_for_tuples():
    from training.limits import check_limits

    check_limits(TrainConfig(hidden=[8, 8]))
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        check_limits(TrainConfig(hidden=[8, 0]))

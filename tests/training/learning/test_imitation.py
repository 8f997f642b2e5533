"""A policy that learns from a baseline before PPO."""

import re

import numpy as np
import pytest
from support.trained_run import TRAINED

from baselines import policy_for
from gpualloc_env import Batch, load_scenario
from training.cli import call
from training.evaluation.seeds import FIRST_TRAINING_SEED
from training.learning import imitation
from training.learning.trained_network import decider_of, learned_policy
from training.train import TrainConfig, make_learner, with_defaults
from training.train import main as train


@pytest.mark.parametrize("allocator", ["ppo", "ppo-shared"])
def test_a_policy_comes_close_to_its_teacher_where_it_leads_itself(monkeypatch, allocator):
    for name, value in (("ROUNDS", 3), ("EPISODES", 32), ("PASSES", 16), ("BATCH", 128)):
        monkeypatch.setattr(imitation, name, value)
    scenario, teacher = load_scenario("serverless", steps=20), policy_for("proportional-fair", "serverless")
    config = with_defaults(TrainConfig(allocator=allocator, num_envs=64, hidden=(16, 16)), "serverless")
    model, transform = make_learner(config, scenario)

    def distance():
        batch, policy, total = Batch(scenario, 20), learned_policy(decider_of(model, transform)), 0.0
        batch.seed(77)
        batch.reset()
        for _ in range(scenario.steps):
            shares = policy(batch.view)
            total += np.abs(shares - teacher(batch.view)).sum(axis=1).mean()
            batch.step(shares)
        return total / scenario.steps

    before = distance()
    imitation.imitate(model, transform, [(scenario, teacher)], FIRST_TRAINING_SEED)
    assert distance() < 0.5 * before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": "proportional"}, "unknown policy 'proportional'"),
        ({"teacher": "cmu", "allocator": "ppo-residual"}, "whose actions are shares"),
    ],
)
def test_a_lesson_that_cannot_be_given_is_refused_before_anything_is_made(tmp_path, capsys, changes, words):
    with pytest.raises(SystemExit):
        call(train, TrainConfig(**TRAINED | changes, out=tmp_path / "run"))
    assert re.search(words, capsys.readouterr().err) and not (tmp_path / "run").exists()

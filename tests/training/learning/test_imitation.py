"""A policy that learns from a baseline before PPO."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.trained_run import TRAINED

from baselines import DEFAULTS, policy_for, with_constants
from gpualloc_env import Batch, load_scenario
from gpualloc_env.allocator.actions import outputs_of
from gpualloc_env.allocator.receding_horizon import Constants
from training.cli import call
from training.evaluation.seeds import FIRST_TRAINING_SEED
from training.learning import imitation
from training.learning.allocators.action_transform import told
from training.learning.allocators.trained_network import LearnedPolicy, decider_of, policy_of
from training.learning.learner import make_learner, with_defaults
from training.train import TrainConfig, lessons_of
from training.train import main as train

QUICK = {"PASSES": 16, "BATCH": 128}


def distances(model, transform, lessons):
    """Mean over steps and episodes of Σ |shares − teacher's| in each lesson's scenario, the model leading."""
    found = []
    for scenario, teacher in lessons:
        own = replace(transform, num_agents=len(scenario.agents))
        batch, policy, total = Batch(scenario, 20), LearnedPolicy(decider_of(model, own)), 0.0
        batch.seed(77)
        batch.reset()
        for _ in range(scenario.steps):
            shares = policy(batch.view)
            total += np.abs(shares - teacher(batch.view)).sum(axis=1).mean()
            batch.step(shares)
        found.append(total / scenario.steps)
    return np.array(found)


@pytest.mark.parametrize(
    ("allocator", "agents"), [("ppo", (None,)), ("ppo-shared", (None,)), ("ppo-shared", (None, 2))]
)
def test_a_policy_comes_close_to_its_teachers_where_it_leads_itself(monkeypatch, allocator, agents):
    for name, value in QUICK.items():
        monkeypatch.setattr(imitation, name, value)
    teacher = policy_for("proportional-fair", "serverless")
    lessons = [(load_scenario("serverless", steps=20, agents=count), teacher) for count in agents]
    config = with_defaults(TrainConfig(allocator=allocator, num_envs=64, hidden=(16, 16)), "serverless")
    model, transform = make_learner(config, lessons[0][0])
    before, rounds = distances(model, transform, lessons), []
    imitation.imitate(
        model, transform, lessons, FIRST_TRAINING_SEED, rounds=3, episodes=32, progress=rounds.append
    )
    assert (distances(model, transform, lessons) < 0.5 * before).all() and rounds == [1, 2, 3]


@pytest.mark.slow
def test_assumptions_come_close_to_those_of_teachers_in_two_scenarios(monkeypatch):
    for name, value in QUICK.items():
        monkeypatch.setattr(imitation, name, value)
    scenarios = load_scenario("serverless", steps=20), load_scenario("paper", steps=20, agents=6)
    tuned_for = "serverless", "bursty"
    lessons = [
        (scenario, policy_for("receding-horizon", key))
        for scenario, key in zip(scenarios, tuned_for, strict=True)
    ]
    config = with_defaults(TrainConfig(allocator="ppo-mpc", num_envs=64, hidden=(32, 32)), "serverless")
    model, transform = make_learner(config, scenarios[0])

    def errors():
        found = []
        for scenario, teacher in lessons:
            batch = Batch(scenario, 8)
            batch.reset()
            for _ in range(10):
                batch.step(np.full((8, len(scenario.agents)), 1.0 / len(scenario.agents)))
            own = LearnedPolicy(decider_of(model, replace(transform, num_agents=len(scenario.agents))))
            outputs = [outputs_of(each.assumed(batch.view), transform.settings) for each in (own, teacher)]
            # Without the last two, of batches, of which the fluid and its controller know nothing.
            found.append(np.abs(outputs[0] - outputs[1])[..., :-2].mean())
        return np.array(found)

    before = errors()
    imitation.imitate(model, transform, lessons, FIRST_TRAINING_SEED, rounds=4, episodes=64)
    after = errors()
    assert (after < 0.3 * before).all()


@pytest.mark.slow
def test_what_the_bill_weighs_tells_scenarios_apart_that_look_alike(monkeypatch):
    for name, value in QUICK.items():
        monkeypatch.setattr(imitation, name, value)
    scenarios = [load_scenario("serverless", steps=20, objective={"cost": cost}) for cost in (0.4, 2.5)]
    constants = [{"bill": bill, "horizon_s": 8.0} for bill in (0.05, 0.4)]
    teachers = [with_constants(DEFAULTS["receding-horizon-batch"], each) for each in constants]
    config = with_defaults(TrainConfig(allocator="ppo-mpc-priced", num_envs=64, hidden=(16,)), "serverless")
    model, transform = make_learner(config, scenarios[0])
    lessons = list(zip(scenarios, teachers, strict=True))
    imitation.imitate(model, transform, lessons, FIRST_TRAINING_SEED, rounds=8, episodes=64)
    batch, place = Batch(scenarios[0], 4), Constants._fields.index("bill")
    batch.reset()
    view = batch.view
    informed = [
        policy_of(model, told(transform, each)).assumed(view).constants[:, place] for each in scenarios
    ]
    assert informed[0] == pytest.approx(0.05, rel=0.2) and informed[1] == pytest.approx(0.4, rel=0.2)
    # Nobody tells it: the mean of the logarithms.
    untold = LearnedPolicy(decider_of(model, transform)).assumed(view).constants[:, place]
    assert untold == pytest.approx((0.05 * 0.4) ** 0.5, rel=0.3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": "proportional"}, "unknown policy 'proportional'"),
        ({"teacher": "cmu", "allocator": "ppo-residual"}, "whose actions are shares"),
        (
            {"lessons": ("paper=cmu",), "allocator": "ppo-mpc"},
            "a teacher for 'paper' does not plan as receding-horizon control does",
        ),
        (
            {"teacher": "training/pretrained/ppo-shared-serverless/seed-0.npz", "allocator": "ppo-mpc"},
            "a teacher for 'serverless' does not plan",
        ),
        ({"lessons": ("steady",)}, "lesson 'steady' must be SCENARIO=POLICY, with :AGENTS"),
        ({"lessons": ("steady@much=cmu",)}, "unknown scenario 'steady@much'"),
        ({"lessons": ("steady@11=cmu",)}, "load"),
        ({"lessons": ("steady=cmv",)}, "unknown policy 'cmv'"),
        ({"lessons": ("staedy=cmu",)}, "staedy"),
        (
            {"lessons": ("serverless:8=cmu",), "allocator": "ppo"},
            "'serverless:8=cmu' has 8 agents, and --allocator ppo decides for 4",
        ),
        (
            {"lessons": ("cluster-small=demand",), "allocator": "ppo-shared"},
            "'cluster-small=demand' has nodes, and --allocator ppo-shared decides for one pool",
        ),
    ],
)
def test_a_lesson_that_cannot_be_given_is_refused_before_anything_is_made(tmp_path, capsys, changes, words):
    with pytest.raises(SystemExit):
        call(train, TrainConfig(**TRAINED | changes, out=tmp_path / "run"))
    assert re.search(words, capsys.readouterr().err) and not (tmp_path / "run").exists()


def test_a_lesson_has_the_agents_and_the_load_that_it_says():
    config = TrainConfig(
        allocator="ppo-shared", lessons=("bursty=cmu", "serverless:8@1.25=cmu", "llm@.5=cmu")
    )
    taught = [scenario for scenario, _ in lessons_of(config, [load_scenario("serverless")])]
    assert taught == [
        load_scenario("bursty"),
        load_scenario("serverless", agents=8, load=1.25),
        load_scenario("llm", load=0.5),
    ]


def test_a_teacher_of_constants_is_known_at_once_and_what_is_seen_can_matter_still(monkeypatch):
    for name, value in QUICK.items():
        monkeypatch.setattr(imitation, name, value)
    scenario = load_scenario("magentic", steps=60)
    config = with_defaults(TrainConfig(allocator="ppo-mpc", num_envs=64, hidden=(8, 8)), "magentic")
    model, transform = make_learner(config, scenario)
    teacher = policy_for("receding-horizon-batch", "magentic")
    imitation.imitate(model, transform, [(scenario, teacher)], FIRST_TRAINING_SEED, rounds=2, episodes=24)
    batch = Batch(scenario, 64)
    batch.reset()
    for _ in range(20):
        batch.step(teacher(batch.view))
    own = LearnedPolicy(decider_of(model, transform))
    said, meant = (outputs_of(each.assumed(batch.view), transform.settings) for each in (own, teacher))
    np.testing.assert_allclose(said, meant, atol=1e-3)
    with torch.no_grad():
        units = model.policy.mlp_extractor.actor(torch.as_tensor(batch.observation)).flatten(0, 1)
    # Saturated units vary by some 0.001.
    assert (units.std(dim=0) > 0.01).all()

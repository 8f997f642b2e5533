"""A policy whose last layer evolves before PPO."""

import json
import pickle

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from support.examples import main_of
from support.trained_run import TRAINED, Interruption
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpualloc_env import load_scenario
from gpualloc_env.allocator.cluster import CLUSTER_COLUMNS
from gpualloc_env.allocator.receding_horizon import CORRECTIONS
from gpualloc_env.cluster_batch import batch_of
from gpualloc_env.metrics import objectives
from gpualloc_env.simulation.observation import OBSERVATION_FEATURES
from training.artifacts.policies import load_policy
from training.evaluation.evaluate import evaluate, rollout
from training.evaluation.held_out import held_out_scenario
from training.evaluation.seeds import FIRST_TRAINING_SEED
from training.files.atomic import write_atomically
from training.learning import evolution
from training.learning.allocators.action_transform import told
from training.learning.allocators.trained_network import policy_of
from training.learning.evolution import begin_reluctant, evolve
from training.learning.learner import make_learner, with_defaults
from training.learning.selection import validation_objective
from training.train import TrainConfig, main

SEARCH = {"generations": 6, "population": 12, "episodes": 8}


def learner(scenario, allocator):
    hidden = () if allocator.startswith("linear") else (8, 8)
    config = TrainConfig(scenario=scenario.name, allocator=allocator, num_envs=4, hidden=hidden, batch_size=2)
    return make_learner(with_defaults(config, scenario.key), scenario)


@pytest.mark.parametrize(
    ("name", "allocator", "less"),
    [
        ("serverless", "ppo-shared", 0.2),
        ("paper", "ppo", 0.1),
        pytest.param("cluster-small", "linear-cluster", 0.005, marks=pytest.mark.slow),
    ],
)
def test_evolution_lowers_j_of_other_episodes_and_moves_the_last_layer_alone(name, allocator, less):
    scenario = load_scenario(name, steps=40)
    model, transform = learner(scenario, allocator)
    weights = {key: each.clone() for key, each in model.policy.state_dict().items()}
    before, seen = validation_objective(model, transform, [scenario], 50), []
    evolve(
        model,
        transform,
        [scenario],
        FIRST_TRAINING_SEED,
        **SEARCH,
        progress=lambda *each: seen.append(each),
    )
    assert validation_objective(model, transform, [scenario], 50) < (1 - less) * before
    moved = {key for key, each in model.policy.state_dict().items() if not torch.equal(each, weights[key])}
    assert moved and all(key.startswith("action_net.") for key in moved)
    assert [generation for generation, _ in seen] == [0, 1, 2, 3, 4, 5]
    assert seen[0][1] == 0 and any(gained < 0 for _, gained in seen)


def test_what_does_not_vary_gets_no_weight():
    scenario = load_scenario("cluster-small", steps=20)
    model, transform = learner(scenario, "linear-cluster")
    evolve(model, transform, [scenario], FIRST_TRAINING_SEED, generations=2, episodes=2)
    weight = model.policy.action_net.own.weight.detach().numpy()
    speed, queue = (CLUSTER_COLUMNS.index(name) for name in ("gpu.speed", "agent.queue"))
    assert (weight[:, speed] == 0).all() and (weight[:, queue] != 0).all()


def test_biases_can_evolve_alone():
    scenario = load_scenario("serverless", steps=20)
    model, transform = learner(scenario, "ppo-mpc-priced")
    head = model.policy.action_net.own
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    evolve(model, transform, [scenario], FIRST_TRAINING_SEED, generations=2, episodes=2, biases=True)
    assert torch.equal(head.weight, weight) and (head.bias != bias).all()


@pytest.mark.parametrize("allocator", ["ppo-residual", "ppo-mpc", "ppo-mpc-priced", "linear-residual"])
def test_it_can_begin_with_an_allocator_that_is_reluctant_to_change_shares(allocator):
    scenario = load_scenario("serverless", steps=10)
    model, transform = learner(scenario, allocator)
    view = batch_of(scenario, 2).view
    before = policy_of(model, told(transform, scenario)).assumed(view)
    begin_reluctant(model, 1.5)
    after = policy_of(model, told(transform, scenario)).assumed(view)
    change = after.corrections - before.corrections
    assert np.allclose(change, [1.5 if name == "reluctance" else 0.0 for name in CORRECTIONS])
    assert np.array_equal(after.constants, before.constants)


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [
        (
            {"allocator": "ppo-shared", "generations": 2},
            "needs an allocator that plans.*--allocator .*ppo-mpc",
        ),
        (
            {"allocator": "linear-cluster", "scenario": "cluster-small", "generations": 2},
            "needs an allocator that plans, and linear-cluster does not; leave it out",
        ),
        ({"allocator": "ppo-mpc"}, "no effect without generations; give --generations too"),
    ],
)
def test_a_reluctance_that_nothing_begins_with_is_refused(settings, refusal):
    with pytest.raises(ValueError, match=refusal):
        main(TrainConfig(**settings, generation_reluctance=2.0))


def test_what_varies_in_any_of_the_scenarios_gets_weight():
    slow, quick = (load_scenario("paper", steps=10, dt=dt) for dt in (1.0, 0.1))
    weights = []
    for scenarios in ([slow], [slow, quick]):
        model, transform = learner(slow, "linear-residual")
        evolve(model, transform, scenarios, FIRST_TRAINING_SEED, generations=2, episodes=2)
        weights.append(
            model.policy.action_net.own.weight.detach().numpy()[:, OBSERVATION_FEATURES.index("dt")]
        )
    assert (weights[0] == 0).all() and (weights[1] != 0).all()


def test_a_seed_leads_to_the_same_weights_and_another_to_others():
    scenario = load_scenario("serverless", steps=10)
    found = []
    for seed in (0, 0, 1):
        model, transform = learner(scenario, "ppo-shared")
        evolve(model, transform, [scenario], FIRST_TRAINING_SEED + seed, generations=2, episodes=2)
        found.append(torch.cat([each.flatten() for each in model.policy.action_net.parameters()]))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_scenarios_count_alike_however_large_their_objectives_are():
    own = load_scenario("diurnal", steps=10)
    weights = {name: 100 * value for name, value in own.objective.model_dump().items() if value}
    found = []
    for beside in (own, load_scenario("diurnal", steps=10, objective=weights)):
        model, transform = learner(own, "ppo-shared")
        scenarios = [load_scenario("serverless", steps=10), beside]
        evolve(model, transform, scenarios, FIRST_TRAINING_SEED, generations=2, episodes=2)
        found.append(torch.cat([each.flatten() for each in model.policy.action_net.parameters()]))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("name", "allocator"),
    [("team", "ppo-mpc-priced"), ("serverless", "ppo"), ("cluster-small", "linear-cluster")],
)
def test_candidates_side_by_side_are_what_each_is_alone(name, allocator):
    scenario, weights = load_scenario(name, steps=15), torch.Generator().manual_seed(3)
    model, transform = learner(scenario, allocator)
    policies, alone = [], []
    for _ in range(3):
        with torch.no_grad():
            for each in model.policy.action_net.parameters():
                each.copy_(torch.randn(each.shape, generator=weights))
        # What is learned later does not change it.
        policies.append(policy_of(model, told(transform, scenario)))
        alone.append(objectives(rollout(policies[-1], scenario, 5, 70, record=False)).mean())
    together = evolution._mean_objectives(policies, scenario, 5, 70)
    assert together.tolist() == alone and len(set(alone)) == 3


EVOLVED = TRAINED | {"total_steps": 0, "generations": 4, "population": 4, "generation_episodes": 2}


def gains(run):
    """What TensorBoard shows of a run's generations: J less J at first."""
    events = EventAccumulator(str(run / "tensorboard" / run.name)).Reload()
    (tag,) = [tag for tag in events.Tags()["scalars"] if "by generation" in tag]
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_a_run_of_evolution_alone_that_is_interrupted_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    whole, cut = (TrainConfig(**EVOLVED, out=tmp_path / name) for name in ("whole", "cut"))
    main(whole)
    result = json.loads((whole.out / "result.json").read_text(encoding="utf-8"))
    assert [point["step"] for point in result["validation"]["curve"]] == [0]
    calls = []

    def interrupted(path, content):
        calls.append(write_atomically(path, content))
        if len(calls) == 2:
            raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(evolution, "write_atomically", interrupted)
        with pytest.raises(Interruption):
            main(cut)
    main(cut)
    one, other = (PPO.load(run.out / "model.zip").policy.state_dict() for run in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert gains(whole.out) == gains(cut.out) and [step for step, _ in gains(cut.out)] == [0, 1, 2, 3]


def test_a_search_that_another_version_kept_is_refused(tmp_path):
    scenario = load_scenario("serverless", steps=10)
    model, transform = learner(scenario, "ppo-shared")
    kept = tmp_path / "evolution.pkl"
    kept.write_bytes(pickle.dumps(("a search", [0.0])))
    with pytest.raises(ValueError, match=r"evolution\.pkl was written by another version.*remove the file"):
        evolve(model, transform, [scenario], FIRST_TRAINING_SEED, generations=2, episodes=2, kept=kept)


@pytest.mark.slow
def test_on_a_log_of_sessions_it_leaves_the_best_baseline_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main_of("made_up_sessions.py")(tmp_path, teams=1, sessions=40, first_seed=2000, scenario="magentic")
    search = {"generations": 16, "population": 12, "generation_episodes": 8, "generation_std": 0.7}
    config = {"scenario": "magentic", "trace": str(tmp_path / "2000.csv"), "allocator": "ppo-mpc"}
    main(
        TrainConfig(
            **config, **search, hidden=(1,), total_steps=0, validation_episodes=8, out=tmp_path / "run"
        )
    )
    scenario = held_out_scenario("magentic", trace=tmp_path / "2000.csv")
    own, best = (
        evaluate("own", load_policy(name, scenario), scenario, 30, 10000).objective.mean()
        for name in (str(tmp_path / "run"), "receding-horizon")
    )
    assert own < 0.99 * best

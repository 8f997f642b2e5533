import json
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize
from support.trained_run import TRAINED, torch_policy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpualloc_env import Agent, Batch, Scenario, Traffic, load_scenario
from gpualloc_env.action_transform import simplex
from gpualloc_env.sb3 import sb3_vec_env
from training.artifacts.policies import load_policy
from training.cli import call
from training.evaluation.evaluate import evaluate
from training.evaluation.seeds import FIRST_TRAINING_SEED, FIRST_VALIDATION_SEED
from training.learning.checkpoint import load
from training.learning.selection import BASELINES
from training.train import TrainConfig, main


@pytest.fixture(scope="module")
def run(trained_run):
    return trained_run


def test_equal_logits_give_equal_shares_and_leave_a_little_idle():
    shares = simplex(4)(np.zeros((1, 4, 19), dtype=np.float32), np.zeros((1, 5), dtype=np.float32))
    idle = np.exp(-3.4) / (1 + np.exp(-3.4))
    assert shares == pytest.approx(np.full((1, 4), (1 - idle) / 4))


def test_shares_are_on_the_simplex_for_any_logits_within_the_bounds():
    transform = simplex(3)
    logits = np.random.default_rng(0).uniform(-6, 6, (500, 4)).astype(np.float32)
    before = logits.copy()
    shares = transform(np.zeros((500, 3, 19), dtype=np.float32), logits)
    assert (shares > 0).all() and (shares.sum(axis=1) < 1).all()
    assert (logits == before).all()


def test_the_adapter_steps_the_same_batch_and_resets_within_the_last_step():
    scenario = load_scenario("serverless", steps=5)
    env, batch = sb3_vec_env(3, scenario, seed=7), Batch(scenario, 3)
    batch.seed(7)
    batch.reset()
    assert (env.reset() == batch.observation).all()
    logits = np.random.default_rng(0).normal(size=(12, 3, 5)).astype(np.float32)
    totals = np.zeros(3)
    for t in range(12):
        observation, reward, done, infos = env.step(logits[t])
        batch.step(env.transform(batch.observation, logits[t]))
        totals += batch.reward
        assert reward == pytest.approx(batch.reward, rel=1e-6)
        assert done.tolist() == [t % 5 == 4] * 3
        if done.any():
            for k, info in enumerate(infos):
                assert (info["terminal_observation"] == batch.observation[k]).all()
                assert info["TimeLimit.truncated"] and info["episode"]["l"] == 5
                assert info["episode"]["r"] == pytest.approx(totals[k])
                assert info["objective"] == pytest.approx(-totals[k] / 5)
            batch.reset()
            totals[:] = 0
        assert (observation == batch.observation).all()


def test_a_run_keeps_its_model_configuration_versions_and_last_checkpoint(run):
    files = {path.name for path in run.iterdir()}
    assert files == {
        "model.zip",
        "transform.json",
        "config.json",
        "checkpoint.pt",
        "result.json",
        "tensorboard",
    }
    config = json.loads((run / "config.json").read_text())
    assert config["config"]["seed"] == 0 and {"torch", "stable-baselines3"} <= config["versions"].keys()


def test_tensorboard_scalars_name_their_units(run):
    assert {path.name for path in (run / "tensorboard").iterdir()} <= {run.name, *BASELINES}
    events = EventAccumulator(str(run / "tensorboard" / run.name))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"episode/latency [s]", "share [GPU]/reasoning", "episode/objective J (lower is better)"} <= {
        tag.removeprefix("serverless training: ") for tag in tags
    }
    assert all(tag.startswith("serverless training") for tag in tags)
    shares = [
        events.Scalars(f"serverless training: share [GPU]/{agent.name}") for agent in load_scenario().agents
    ]
    assert all(0 < sum(share[k].value for share in shares) <= 1 for k in range(len(shares[0])))


def test_a_loaded_allocator_acts_as_the_trained_one(run):
    scenario = load_scenario("serverless", steps=20)
    trained = evaluate("trained", torch_policy(run, scenario), scenario, 5, 0)
    loaded = evaluate("loaded", load_policy(str(run), scenario), scenario, 5, 0)
    assert trained.objective == pytest.approx(loaded.objective, rel=1e-5)


def test_the_same_seed_trains_the_same_weights(run, tmp_path):
    main(TrainConfig(**TRAINED, out=tmp_path / "again"))
    main(TrainConfig(**TRAINED, seed=1, out=tmp_path / "other"))
    weights = [
        PPO.load(path / "model.zip", device="cpu").policy.state_dict()
        for path in (run, tmp_path / "again", tmp_path / "other")
    ]
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])
    assert any((weights[0][key] != weights[2][key]).any() for key in weights[0])


def test_the_learner_sees_normalised_rewards_but_plain_observations():
    env = VecNormalize(sb3_vec_env(2, load_scenario("serverless", steps=5), seed=0), norm_obs=False)
    observation = env.reset()
    assert ((observation >= 0) & (observation <= 1)).all()


def test_training_plays_training_seeds_only(tmp_path, monkeypatch):
    seeds = []
    real = Batch.seed

    def seed(batch, first, mask=None):
        seeds.append(first)
        real(batch, first, mask)

    monkeypatch.setattr(Batch, "seed", seed)
    main(TrainConfig(**{**TRAINED, "total_steps": 256}, seed=3, validate_every=0, out=tmp_path / "run"))
    assert set(seeds) == {4 * FIRST_TRAINING_SEED}


def test_validation_seeds_are_neither_held_out_nor_trained_on():
    assert 10_000 + 10**9 < FIRST_VALIDATION_SEED and FIRST_VALIDATION_SEED + 10**9 < FIRST_TRAINING_SEED


@pytest.fixture(scope="module")
def worsening(tmp_path_factory):
    """A run whose learning rate is so high that it soon gets worse, stopped after two such validations."""
    out = tmp_path_factory.mktemp("validated") / "run"
    config = {**TRAINED, "total_steps": 20_000, "learning_rate": 0.5, "validate_every": 256, "patience": 2}
    config["critic_updates"] = 0
    main(TrainConfig(**config, out=out))
    return out


def test_the_best_policy_in_validation_becomes_the_model(worsening):
    result = json.loads((worsening / "result.json").read_text())
    curve = {point["step"]: point["objective"] for point in result["validation"]["curve"]}
    assert result["best"]["objective"] == min(curve.values()) < list(curve.values())[-1]
    scenario = load_scenario("serverless", steps=20)
    kept = evaluate("kept", load_policy(str(worsening), scenario), scenario, 32, FIRST_VALIDATION_SEED)
    assert kept.objective.mean() == pytest.approx(result["best"]["objective"], rel=1e-12)
    last = load(worsening / "checkpoint.pt")["policy"]
    model = PPO.load(worsening / "model.zip", device="cpu").policy.state_dict()
    assert any((model[key] != last[key]).any() for key in model)


def test_patience_stops_after_so_many_validations_without_a_gain(worsening):
    result = json.loads((worsening / "result.json").read_text())
    steps = [point["step"] for point in result["validation"]["curve"]]
    assert result["stopped_early"] and steps[-1] < 20_000
    assert steps.index(result["best"]["step"]) == len(steps) - 3


def test_the_validation_curve_is_in_tensorboard(worsening):
    events = EventAccumulator(str(worsening / "tensorboard" / worsening.name))
    events.Reload()
    validation = json.loads((worsening / "result.json").read_text())["validation"]
    curve, (tag,) = validation["curve"], [tag for tag in events.Tags()["scalars"] if "/1 J in val" in tag]
    assert {"_hparams_/session_start_info"} <= set(events.summary_metadata)
    assert any("configuration" in tag for tag in events.Tags()["tensors"])
    for name in BASELINES:
        level = EventAccumulator(str(worsening / "tensorboard" / name)).Reload().Scalars(tag)
        assert [point.value for point in level] == pytest.approx([validation["baselines"][name]] * 2)
        assert level[0].step == 0 < level[1].step
    scalars = events.Scalars(tag)
    assert [scalar.step for scalar in scalars] == [point["step"] for point in curve]
    objectives = [point["objective"] for point in curve]
    assert [scalar.value for scalar in scalars] == pytest.approx(objectives, rel=1e-6)


@pytest.mark.parametrize("validate_every", [pytest.param(256, marks=pytest.mark.slow), 0])
def test_of_several_seeds_the_best_in_validation_is_named(tmp_path, capsys, validate_every):
    out = tmp_path / "runs"
    main(TrainConfig(**TRAINED, validate_every=validate_every, seeds=3, out=out))
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Best in validation")]
    if validate_every == 0:
        assert not said
        return
    results = {path.parent: json.loads(path.read_text())["best"] for path in out.glob("seed-*/result.json")}
    best = min(results, key=lambda run: results[run]["objective"])
    assert len(results) == 3 and len(said) == 1
    assert said[0].endswith(f"with J = {results[best]['objective']:.4g}: {best}")


def test_without_validation_the_last_policy_is_the_model(tmp_path):
    main(TrainConfig(**TRAINED, validate_every=0, out=tmp_path / "run"))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result == {"model": "the last policy", "stopped_early": False}
    last = load(tmp_path / "run" / "checkpoint.pt")["policy"]
    model = PPO.load(tmp_path / "run" / "model.zip", device="cpu").policy.state_dict()
    assert all((model[key] == last[key]).all() for key in model)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"validate_every": 0, "patience": 1}, "give a validate_every above 0"),
        ({"batch_size": 100}, "batch_size must divide num_envs × rollout_steps = 256"),
        ({"total_steps": -1}, "total_steps must be at least 0, got -1"),
        ({"total_steps": 0}, "total_steps of 0 leaves nothing to learn"),
        ({"scenario": "servreless"}, "did you mean 'serverless'"),
        ({"scenario": "trace", "trace": Path("-")}, "-: a run that can be continued reads its log more than"),
    ],
)
def test_a_mistake_ends_with_one_line(changes, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(main, TrainConfig(**{**TRAINED, **changes}, out=tmp_path / "run"))
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and words in message and message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_unusable_policies_are_named(run, tmp_path):
    scenario = load_scenario()
    with pytest.raises(ValueError, match="unknown policy 'adaptve'; give one of static"):
        load_policy("adaptve", scenario)
    with pytest.raises(ValueError, match=r"model\.zip is missing"):
        load_policy(str(tmp_path), scenario)
    alone = Scenario(
        name="alone",
        agents=(Agent(name="only", model_mb=1, throughput_rps=1),),
        traffic=Traffic(rates_rps=(0.5,)),
    )
    with pytest.raises(ValueError, match="was trained for 4 agents, scenario 'alone' has 1"):
        load_policy(str(run), alone)

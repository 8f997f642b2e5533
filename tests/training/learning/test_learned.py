"""The allocators that share a network: of any number of agents, in any order, exported as they are."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize
from support.graph_runs import graph_outputs
from support.trained_run import TRAINED, torch_policy, torch_shares

from baselines import DEFAULTS, POLICIES, policy_for
from gpualloc_env import OBSERVATION_FEATURES, SCENARIOS, Batch, load_scenario
from gpualloc_env.allocator.actions import ACTIONS, ASSUMPTIONS, outputs_of
from gpualloc_env.allocator.allocator import Allocator, AllocatorError
from gpualloc_env.allocator.decider import Decider
from gpualloc_env.allocator.receding_horizon import (
    CORRECTIONS,
    DECAY,
    RELUCTANCE,
    Assumed,
    Constants,
    plan,
    plan_observed,
)
from gpualloc_env.metrics import objectives
from gpualloc_env.simulation.observation import observe, pack
from training.artifacts.policies import load_policy
from training.cli import call
from training.evaluation.evaluate import evaluate, rollout
from training.export import ExportConfig
from training.export import main as export
from training.learning.allocators.action_transform import assumptions, corrections
from training.learning.allocators.trained_network import LearnedPolicy, decider_of, network_of
from training.learning.environments.paired_vec_env import PairedVecEnv
from training.learning.learner import make_ppo, make_transform, with_defaults
from training.train import TrainConfig
from training.train import main as train

KINDS = ("ppo-shared", "ppo-residual", "ppo-mpc", "ppo-mpc-priced")
FORMS = ("npz", "onnx")
BASE = POLICIES["receding-horizon"].constants


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A short run of each, whose last layer is then made steep, so that it matters."""
    out = tmp_path_factory.mktemp("learned")
    for kind in KINDS:
        train(TrainConfig(**{**TRAINED, "allocator": kind, "learning_rate": 3e-3}, out=out / kind))
    return {kind: out / kind for kind in KINDS}


@pytest.fixture(scope="module")
def files(runs):
    made = {}
    for kind, run in runs.items():
        for form in FORMS:
            made[kind, form] = run.parent / f"{kind}.{form}"
            export(ExportConfig(run, out=made[kind, form], episodes=4))
    return made


def fresh(allocator, scenario="serverless"):
    """An untrained model, and what makes shares of its actions."""
    config = with_defaults(TrainConfig(allocator=allocator), scenario)
    scenario = load_scenario(scenario)
    transform = make_transform(config, scenario)
    env = PairedVecEnv(scenario, 2, 0, transform, POLICIES["receding-horizon"])
    model = make_ppo(replace(config, num_envs=2, batch_size=64), VecNormalize(env, norm_obs=False))
    return model, transform


def lively(allocator):
    """An untrained model whose outputs differ from zero."""
    model, transform = fresh(allocator)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.policy.action_net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return model, transform


def played(scenario, episodes=20, steps=40):
    """A batch in the middle of its episodes, under equal shares."""
    batch = Batch(load_scenario(scenario), episodes)
    batch.seed(5)
    batch.reset()
    for _ in range(steps):
        batch.step(np.full((episodes, batch.num_agents), 1.0 / batch.num_agents))
    return batch


@pytest.mark.parametrize("scenario", ["serverless", "steady", "bursty"])
def test_an_untrained_correction_is_its_base_bit_for_bit(scenario):
    model, transform = fresh("ppo-residual", scenario)
    short = load_scenario(scenario, steps=60)
    base = rollout(policy_for("receding-horizon", scenario), short, 10, 3, record=True)
    own = rollout(LearnedPolicy(decider_of(model, transform)), short, 10, 3, record=True)
    assert (own.history == base.history).all()


def test_untrained_assumptions_are_those_of_its_base():
    view = played("bursty").view
    base = DEFAULTS["receding-horizon-batch"].assumed(view)
    for trained_for in ("bursty", "team"):
        own = LearnedPolicy(decider_of(*fresh("ppo-mpc", trained_for))).assumed(view)
        assert own.constants == pytest.approx(base.constants, rel=1e-12)
        assert (own.corrections == 0).all()


@pytest.mark.parametrize("scenario", ["serverless", "bursty", "workflow", "paper", "llm", "team"])
@pytest.mark.parametrize("name", ["receding-horizon", "receding-horizon-batch", "residual"])
def test_outputs_for_what_another_assumes_lead_to_its_shares(scenario, name):
    own = load_scenario(scenario)
    residual = "linear-residual-team" if own.service == "requests" else "ppo-residual-diurnal"
    file = f"training/pretrained/{residual}/seed-0.npz"
    policy = load_policy(file if name == "residual" else name, own)
    settings = assumptions(load_scenario("serverless")).settings
    view = played(scenario).view
    assumed = policy.assumed(view)
    outputs = outputs_of(assumed, settings)
    again = ACTIONS["assumptions"][0](settings)(observe(view), outputs, pack(view))
    # Without batching, batches of almost no effect can turn a choice between two neighbouring shares.
    level = 0.01 if own.service == "requests" else 0.001
    assert np.abs(again - plan(view, *assumed)).max() <= level
    # Of a controller that was not tuned for the scenario they are zero.
    untuned = name == "receding-horizon-batch" and scenario not in ("llm", "team")
    assert np.abs(outputs).max() <= settings["bound"] and outputs.any() != untuned


def test_what_cannot_be_assumed_is_brought_as_near_as_it_can():
    settings = assumptions(load_scenario("serverless")).settings
    far = Constants(horizon_s=1e9, inflow_weight=0.0, persistence=1.0, terminal=0.0, bill=0.0, standby=0.0)
    outputs = outputs_of(Assumed(np.array([far]), np.zeros((1, 3, len(CORRECTIONS)))), settings)
    constants, corrections = ASSUMPTIONS["assumptions"](settings)(outputs)
    reached = Constants(*constants[0])
    assert reached.horizon_s == pytest.approx(settings["base"]["horizon_s"] * np.exp(4))
    assert reached.inflow_weight < 0.05 and reached.terminal < 0.01 and reached.decoding < 0.05
    # Persistence is that of the base, and the decay is corrected by as much as can be.
    assert reached.persistence == settings["base"]["persistence"]
    assert corrections[0, :, DECAY] == pytest.approx(-4.0)


@pytest.mark.parametrize("base", [{"bill": 0.0}, {"inflow_weight": 1.0}, {"horizon_s": math.nan}])
def test_assumptions_that_no_factor_can_change_are_refused(base):
    settings = assumptions(load_scenario("serverless")).settings
    with pytest.raises(ValueError, match=r"must be (above 0|finite)"):
        ASSUMPTIONS["assumptions"](settings | {"base": settings["base"] | base})


def test_an_allocator_says_what_it_assumes(files):
    view = played("serverless").view
    assert Allocator.load(files["ppo-shared", "npz"]).assumed(view) is None
    for kind in ("ppo-residual", "ppo-mpc", "ppo-mpc-priced"):
        allocator = Allocator.load(files[kind, "npz"])
        assert plan(view, *allocator.assumed(view)) == pytest.approx(allocator.decide(view), abs=1e-12)
        fields = {name: value[0] if np.ndim(value) else value for name, value in view._asdict().items()}
        alone = allocator.assumed(fields)
        assert [each.shape[0] for each in alone] == [1, 1]
        assert alone.corrections[0] == pytest.approx(allocator.assumed(view).corrections[0], abs=1e-12)
        with pytest.raises(ValueError, match="the view lacks queue"):
            allocator.assumed(fields | {"queue": None})


@pytest.mark.parametrize("allocator", KINDS)
def test_the_order_of_the_agents_changes_nothing(allocator):
    model, transform = lively(allocator)
    decide = decider_of(model, transform)
    batch, order = played("serverless"), np.array([2, 0, 3, 1])
    shares = decide(batch.observation, pack(batch.view))
    moved = batch.view._replace(
        **{name: field[:, order] for name, field in batch.view._asdict().items() if np.ndim(field)}
    )
    again = decide(np.ascontiguousarray(batch.observation[:, order]), pack(moved))
    assert again == pytest.approx(shares[:, order], abs=1e-9)
    assert np.ptp(shares, axis=0).min() > 0.02


@pytest.mark.parametrize("allocator", KINDS)
def test_torch_explores_and_values_without_regard_to_order(allocator):
    model, _ = lively(allocator)
    policy, order = model.policy, torch.tensor([2, 0, 3, 1])
    seen = torch.rand((7, *model.observation_space.shape))
    seen = (seen, seen[:, order])
    normal = [(each.mean, each.log_std.expand_as(each.mean)) for each in map(policy.get_distribution, seen)]
    each = normal[0][0].shape[1] // 4
    for one, two in zip(*normal, strict=True):
        rows = one[:, : 4 * each].reshape(7, 4, each)[:, order]
        assert torch.allclose(rows, two[:, : 4 * each].reshape(7, 4, each), atol=1e-5)
        assert torch.allclose(one[:, 4 * each :], two[:, 4 * each :], atol=1e-5)
    values = [policy.predict_values(rows) for rows in seen]
    assert torch.allclose(*values, atol=1e-5)


@pytest.mark.parametrize("allocator", KINDS)
def test_it_decides_as_the_trained_model_on_ten_thousand_observations(runs, files, allocator):
    batch = Batch(load_scenario("serverless"), 250)
    batch.seed(3)
    batch.reset()
    seen = []
    for _ in range(20):
        seen.append(batch.observation)
        batch.step(np.full((250, 4), 0.25))
    random = np.random.default_rng(0).random((5000, 4, len(OBSERVATION_FEATURES)), dtype=np.float32)
    seen = np.concatenate([*seen, random])
    taken = Allocator.load(files[allocator, "npz"])
    assert np.abs(taken(seen) - torch_shares(runs[allocator], seen)).max() <= 1e-6
    assert not taken.fallbacks and taken.decisions == 10_000
    if allocator == "ppo-shared":
        shares = torch_shares(runs[allocator], seen)
        assert np.abs(graph_outputs(files[allocator, "onnx"], seen) - shares).max() <= 1e-6


@pytest.mark.parametrize("allocator", KINDS)
def test_a_loaded_allocator_acts_as_the_trained_one(runs, files, allocator):
    scenario = load_scenario("serverless", steps=60)
    trained = evaluate("trained", torch_policy(runs[allocator], scenario), scenario, 8, 7)
    for name in (str(files[allocator, "npz"]), str(runs[allocator])):
        taken = evaluate("taken", load_policy(name, scenario), scenario, 8, 7)
        assert taken.objective == pytest.approx(trained.objective, rel=1e-6)


def among(count):
    """`serverless` with so many agents on a platform that grows with them."""
    base = SCENARIOS["serverless"]
    agents = tuple(
        base.agents[k % 4].model_copy(update={"name": f"agent-{k}", "min_share": 0.25 / count})
        for k in range(count)
    )
    platform = base.platform.model_copy(update={"gpus": max(1.0, count / 4)})
    return base.model_copy(
        update={"name": f"of-{count}", "agents": agents, "platform": platform, "steps": 40}
    )


@pytest.mark.parametrize("allocator", KINDS)
@pytest.mark.parametrize("count", [2, 8, 16, 64])
def test_trained_on_four_it_serves_any_number(files, runs, allocator, count):
    scenario = among(count)
    allocators = [load_policy(str(place), scenario) for place in (files[allocator, "npz"], runs[allocator])]
    results = [evaluate("one", policy, scenario, 3, 11) for policy in allocators]
    assert results[0].objective == pytest.approx(results[1].objective, rel=1e-6)
    assert results[0].steps.mean["served"].sum() > 0
    taken = Allocator.load(files[allocator, "npz"], agents=scenario.agent_names)
    shares = taken(np.full((5, count, 19), 0.5, dtype=np.float32))
    assert shares.shape == (5, count) and (shares.sum(axis=1) <= 1 + 1e-12).all()
    assert taken.agents == scenario.agent_names and len(taken.manifest.agents) == 4


def test_one_that_is_not_shared_serves_its_own_number_alone(exported):
    with pytest.raises(AllocatorError, match=r"was trained for 4 agents, .* and cannot decide for 2"):
        Allocator.load(exported["npz"], agents=("a", "b"))


@pytest.mark.slow
@pytest.mark.parametrize("allocator", KINDS)
def test_the_limits_hold_on_a_hundred_thousand_fuzzed_observations(files, allocator):
    taken = Allocator.load(files[allocator, "npz"], min_shares=[0.1, 0.3, 0.2, 0.0])
    rng = np.random.default_rng(0)
    bad = [np.nan, np.inf, -np.inf, -1.0, 1.0000002, 1e300, 0.0, 1.0, 1.0 - 2.0**-24, 1e-30]
    for _ in range(20):
        seen = rng.random((5000, 4, len(OBSERVATION_FEATURES)))
        chance = rng.choice([0.0, 0.01, 0.1, 0.5, 1.0], (5000, 1, 1))
        # In half of the rows only extremes that are still in range.
        kinds = np.where(
            rng.random((5000, 1, 1)) < 0.5, rng.choice(bad, seen.shape), rng.choice(bad[6:], seen.shape)
        )
        shares = taken(np.where(rng.random(seen.shape) < chance, kinds, seen))
        assert np.isfinite(shares).all() and (shares >= [0.1, 0.3, 0.2, 0.0]).all()
        assert (shares <= 1).all() and (shares.sum(axis=1) <= 1 + 1e-12).all()
    assert taken.decisions == 100_000 and 0 < sum(taken.fallbacks.values()) < 90_000


@pytest.mark.parametrize("allocator", KINDS)
def test_extreme_views_are_decided_too(files, allocator):
    taken = Allocator.load(files[allocator, "npz"])
    rng = np.random.default_rng(1)
    fields = played("serverless", 1).view._asdict()
    extremes = [0.0, 1e-300, 1e-12, 1e12, 1e300, np.nan, np.inf, -1.0, 1.0]
    for _ in range(2000):
        view = {
            name: np.array(value[0]) if np.ndim(value) else float(value) for name, value in fields.items()
        }
        for name in rng.choice(list(view), 3):
            value = rng.choice(extremes)
            if np.ndim(view[name]):
                view[name][rng.integers(4)] = value
            else:
                view[name] = value
        shares = taken.decide(view)
        assert np.isfinite(shares).all() and (shares >= 0).all() and shares.sum() <= 1 + 1e-12


@pytest.mark.parametrize(
    ("scenario", "batching"),
    [(name, (1.0, 0.0)) for name in ("serverless", "steady", "paper", "fleet", "team")]
    + [("team", (13.54, 0.83)), ("llm", (10.0, 0.5))],
)
def test_a_plan_from_the_observation_is_the_plan_from_the_view(scenario, batching):
    batch = played(scenario, episodes=50 if scenario != "fleet" else 4)
    logarithms = np.random.default_rng(0).uniform(-1, 1, (*batch.view.queue.shape, len(CORRECTIONS)))
    constants = np.array([*BASE[:-2], *batching])
    exact = plan(batch.view, constants, logarithms)
    seen = plan_observed(batch.observation, constants, logarithms)
    # Rounding to float32 can turn a choice between two nearly equal shares.
    assert np.quantile(np.abs(seen - exact), 0.9) < 1e-4
    assert np.abs(seen.sum(axis=1) - exact.sum(axis=1)).max() < 0.05


def test_reluctance_keeps_what_is_held():
    batch = played("serverless")
    logarithms = np.zeros((20, 4, len(CORRECTIONS)))
    moved = np.abs(plan(batch.view, BASE, logarithms) - batch.view.share) > 0.021
    logarithms[..., RELUCTANCE] = 2.0
    moved_less = np.abs(plan(batch.view, BASE, logarithms) - batch.view.share) > 0.021
    assert moved_less.sum() < moved.sum()


def test_rewards_are_the_gain_on_the_reference_and_nothing_before_anything_is_learned():
    scenario, reference = load_scenario("serverless", steps=30), POLICIES["receding-horizon"]
    env = PairedVecEnv(scenario, 6, 2**41, corrections(scenario), reference)
    seen = env.reset()
    assert env.observation_space.contains(seen[0]) and seen.shape == (6, 4, 35)
    for _ in range(65):
        seen, rewards, _, _ = env.step(np.zeros((6, 16), dtype=np.float32))
        assert (rewards == 0).all()
    env = PairedVecEnv(scenario, 6, 2**41, corrections(scenario), reference)
    env.reset()
    rng, total = np.random.default_rng(0), np.zeros(6)
    for _ in range(30):
        _, rewards, dones, infos = env.step(rng.uniform(-2, 2, (6, 16)).astype(np.float32))
        total += rewards
    assert dones.all() and not any(info["TimeLimit.truncated"] for info in infos)
    base = rollout(reference, scenario, 6, 2**41, record=False)
    latency = base.totals["latency"] / 30
    gained = objectives(base) - [info["objective"] for info in infos]
    assert total / 30 == pytest.approx(gained / (latency + 0.2), abs=1e-6)


def test_the_critic_sees_the_arrivals_to_come():
    scenario = load_scenario("serverless", steps=12)
    env = PairedVecEnv(scenario, 3, 9, corrections(scenario), POLICIES["static"])
    seen = env.reset()
    throughput = np.array([agent.throughput_rps for agent in scenario.agents])
    for t in range(3):
        load = env.batch.arrivals[t + 1 : t + 4].sum(axis=0) / (3 * throughput)
        assert seen[:, :, 27] == pytest.approx(load / (1 + load), abs=1e-6)
        seen = env.step(np.zeros((3, 16), dtype=np.float32))[0]
    assert seen[0, 0, 34] == pytest.approx(9 / 39)


def test_the_actor_sees_none_of_it():
    model, _ = lively("ppo-residual")
    seen = torch.rand((5, *model.observation_space.shape))
    other = seen.clone()
    other[:, :, len(OBSERVATION_FEATURES) :] = 0.0
    means = [model.policy.get_distribution(each).mean for each in (seen, other)]
    assert torch.equal(*means)
    assert not torch.equal(model.policy.predict_values(seen), model.policy.predict_values(other))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"actions": {"kind": "simplex", "bound": 6.0, "idle_bias": 0.0}},
            "simplex for 4 agents needs 5 outputs",
        ),
        ({"layers": [18, 32, 32, 4]}, "must begin with 26 features"),
        ({"idle": True}, "the arrays must be"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, words):
    settings, arrays = network_of(*fresh("ppo-residual"))
    with pytest.raises(ValueError, match=words):
        Decider(settings | changes, arrays, 4)


def test_a_run_can_start_from_the_weights_of_another_one_on_other_agents(runs, tmp_path, capsys):
    config = {**TRAINED, "allocator": "ppo-residual", "scenario": "fleet", "total_steps": 256}
    config |= {"validation_episodes": 2, "validate_every": 256, "critic_updates": 1}
    train(TrainConfig(**config, start_from=runs["ppo-residual"], out=tmp_path / "fleet"))
    models = [PPO.load(run / "model.zip", device="cpu") for run in (runs["ppo-residual"], tmp_path / "fleet")]
    weights = [model.policy.state_dict() for model in models]
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0] if "actor" in key)
    with pytest.raises(SystemExit):
        call(
            train, TrainConfig(**config, hidden=(8,), start_from=runs["ppo-residual"], out=tmp_path / "other")
        )
    assert "holds another network" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call(train, TrainConfig(**config, start_from=tmp_path, out=tmp_path / "none"))
    assert "holds no finished training run" in capsys.readouterr().err

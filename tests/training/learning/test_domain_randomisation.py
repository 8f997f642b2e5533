import json
from pathlib import Path

import numpy as np
import pytest
import tomlkit
from support.trained_run import TRAINED, interrupt

from baselines import POLICIES
from gpualloc_env import SCENARIOS, Scenario, load_scenario
from training.cli import call
from training.evaluation.seeds import FIRST_TRAINING_SEED
from training.learning.allocators.action_transform import corrections
from training.learning.checkpoint import load
from training.learning.environments.domain_randomisation import SEEDS_PER_DOMAIN, DomainVecEnv, variants
from training.learning.environments.paired_vec_env import PairedVecEnv
from training.learning.learner import make_learner, played, with_defaults
from training.learning.selection import baseline_objectives
from training.train import TrainConfig, main


@pytest.mark.parametrize("name", [name for name, each in SCENARIOS.items() if each.trace is None])
def test_variants_are_sound_scenarios_around_the_first(name):
    scenario = load_scenario(name)
    made = variants(scenario, 12, seed=0)
    assert made[0] == scenario and len(made) == 12 and made == variants(scenario, 12, seed=0)
    assert made[1:] != variants(scenario, 12, seed=1)[1:]
    assert len({each.dt for each in made}) > 2
    for each in made:
        assert Scenario.model_validate(each.model_dump()) == each
        assert each.agents == scenario.agents
        # The episode lasts as long, to within a step.
        assert abs(each.steps * each.dt - scenario.steps * scenario.dt) <= each.dt
        assert 0.25 <= each.dt / scenario.dt <= 2
    frictions = {each.platform.reallocation_s for each in made}
    assert len(frictions) == (12 if scenario.platform.reallocation_s else 1)
    traffic = {(each.traffic or each.sessions).model_dump_json() for each in made}
    assert len(traffic) == 12


def test_a_log_is_stretched(azure_log):
    scenario = load_scenario("trace", trace=azure_log)
    loads = {each.trace.load for each in variants(scenario, 6, seed=0)}
    assert len(loads) == 6 and all(0.4 - 1e-9 <= load <= 0.96 + 1e-9 for load in loads)


def test_each_domain_is_what_it_would_be_alone():
    made = variants(load_scenario("serverless", steps=9), 3, seed=4)
    reference, transform = POLICIES["receding-horizon"], corrections(load_scenario("serverless"))

    def environments():
        return [PairedVecEnv(each, 2, 0, transform, reference) for each in made]

    joined, alone = DomainVecEnv(environments()), environments()
    joined.seed(FIRST_TRAINING_SEED)
    for k, env in enumerate(alone):
        env.seed(FIRST_TRAINING_SEED + k * SEEDS_PER_DOMAIN)
    seen, parts = joined.reset(), [env.reset() for env in alone]
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert (seen == np.concatenate(parts)).all()
        actions = rng.normal(size=(6, 16)).astype(np.float32)
        seen, rewards, dones, infos = joined.step(actions)
        results = [env.step(actions[2 * k : 2 * k + 2]) for k, env in enumerate(alone)]
        parts = [result[0] for result in results]
        assert (rewards == np.concatenate([result[1] for result in results])).all()
        assert len(infos) == 6 and dones.all() == ("episode" in infos[5])


@pytest.mark.slow
def test_a_run_on_several_domains_goes_on_as_if_it_had_not_been_interrupted(tmp_path):
    config = {**TRAINED, "allocator": "ppo-residual", "total_steps": 1024, "domains": 4}
    config |= {"checkpoint_every": 256, "critic_updates": 1}
    main(TrainConfig(**config, out=tmp_path / "whole"))
    interrupt(TrainConfig(**config, out=tmp_path / "cut"), checkpoints=2)
    main(TrainConfig(**config, out=tmp_path / "cut"))
    weights = [load(tmp_path / name / "checkpoint.pt")["policy"] for name in ("whole", "cut")]
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])
    assert weights[0]["action_net.own.weight"].abs().max() > 0


@pytest.mark.parametrize(
    ("name", "allocator"), [("serverless", "ppo"), ("cluster-small", "ppo-cluster-hierarchical")]
)
def test_environments_go_on_on_their_own_scenario_alone(name, allocator):
    def environments(**changes):
        scenario = load_scenario(name, steps=5, **changes)
        config = TrainConfig(**{**TRAINED, "scenario": name, "allocator": allocator})
        environments = make_learner(with_defaults(config, name), scenario, helpers=False)[0].env.venv
        environments.reset()
        return environments

    begun = environments()
    environments().restore(begun.snapshot())
    message = f"scenario '{name}' is not the one that the run was started with: its description has changed"
    with pytest.raises(ValueError, match=message):
        environments(load=0.3).restore(begun.snapshot())


def test_domains_must_share_the_environments_evenly(tmp_path, capsys):
    with pytest.raises(SystemExit):
        call(main, TrainConfig(**TRAINED, domains=3, out=tmp_path / "run"))
    message = "domains × scenarios = 3 × 1 must divide num_envs, got 8; give --num-envs 9"
    assert message in capsys.readouterr().err


def test_scenarios_side_by_side_are_trained_on_and_validated_together(tmp_path):
    options = {"scenario": "paper", "beside": ("paper-dominance", "serverless"), "domains": 2}
    options |= {"num_envs": 12, "total_steps": 64, "validation_episodes": 2}
    config = TrainConfig(**{**TRAINED, **options}, out=tmp_path / "run")
    full = with_defaults(config, "paper")
    scenarios = played(full, load_scenario("paper", full))
    assert [each.name for each in scenarios] == ["paper", "paper-dominance", "serverless"]
    learner, _ = make_learner(full, scenarios[0])
    assert learner.n_envs == 12 and len(learner.env.venv.snapshot()) == 6
    main(config)
    levels = json.loads((tmp_path / "run" / "result.json").read_text())["validation"]["baselines"]
    alone = [baseline_objectives([each], 2)["adaptive"] for each in scenarios]
    assert levels["adaptive"] == pytest.approx(np.mean(alone)) and alone[0] != alone[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beside": ("fleet",)}, "beside needs scenarios with the agents of serverless, coordinator, nlp, "),
        ({"beside": ("paper",), "num_envs": 7}, "= 1 × 2 must divide num_envs, got 7; give --num-envs 8"),
        ({"beside": ("papper",)}, "did you mean 'paper'"),
        ({"beside": ("small.toml",)}, "serverless has, but small has nodes of 2 GPUs"),
    ],
)
def test_scenarios_that_do_not_go_together_are_refused(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    nodes = {"nodes": [{"gpus": 2, "memory_mb": 80000, "speed": 1.0}]}
    made = load_scenario("llm").model_dump(mode="json", exclude_none=True, exclude={"name"}) | nodes
    Path("small.toml").write_text(tomlkit.dumps(made), encoding="utf-8")
    with pytest.raises(SystemExit):
        call(main, TrainConfig(**{**TRAINED, **options}, out=tmp_path / "run"))
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()

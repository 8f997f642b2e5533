"""The allocators that the repository brings along load, say how to repeat them, and do what they say."""

import shutil

import numpy as np
import pytest
from support.examples import main_of
from support.places import PRETRAINED

from baselines import policy_for
from gpualloc_env import SCENARIOS, Batch, ScenarioError
from gpualloc_env.allocator import Allocator, AllocatorError
from gpualloc_env.allocator.file import read
from training.artifacts.policies import load_policies, load_policy
from training.burst_figure import BurstFigureConfig
from training.burst_figure import main as draw_burst
from training.cli import call
from training.compare import named
from training.evaluation.evaluate import evaluate
from training.evaluation.held_out import held_out_scenario
from training.evaluation.seeds import FIRST_VALIDATION_SEED

FILES = sorted(PRETRAINED.rglob("*.npz"))
SERVERLESS = PRETRAINED / "ppo-residual-serverless"


def name_of(path):
    return str(path.relative_to(PRETRAINED))


# One seed of each allocator of a pool is played every time, the others where everything is checked.
EVERY_FILE = [
    pytest.param(
        path,
        id=name_of(path),
        marks=() if path.stem == "seed-0" and "cluster" not in path.parent.name else pytest.mark.slow,
    )
    for path in FILES
]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_manifest_says_where_the_file_comes_from(path):
    manifest, _ = read(path)
    config, members = manifest.training["config"], manifest.training.get("members", [manifest.training])
    universal = path.parent.name == "universal"
    assert path.stat().st_size < (240_000 if universal else 60_000 * len(members))
    scenario = config["scenario"]
    for member in members:
        assert member["command"].startswith(f"python -m training.train --scenario {scenario} ")
        assert not member["git_commit"].endswith("-dirty")
    taught_elsewhere = [each for each in config.get("lessons") or () if not each.startswith(f"{scenario}=")]
    assert universal == bool(taught_elsewhere)
    warm = "-warm" if config.get("teacher") else ""
    assert universal or path.parent.name == f"{config['allocator']}{warm}-{scenario}"
    assert f"seed-{config['seed']}" == path.stem and not manifest.training["git_commit"].endswith("-dirty")
    validation = manifest.validation
    assert validation.scenario == scenario and validation.episodes >= 1
    # Of clusters every step of the validation is compared.
    compared = validation.episodes * 300 if manifest.of_clusters else 10_000
    assert validation.largest_difference <= 1e-6 and validation.compared_observations == compared
    assert validation.last_seed == validation.first_seed + validation.episodes - 1


@pytest.mark.parametrize("path", EVERY_FILE)
def test_the_file_repeats_what_its_manifest_says(path):
    manifest, _ = read(path)
    validation, config = manifest.validation, manifest.training["config"]
    asked = {name: config[name] for name in ("steps", "dt", "load")}
    if config["trace"] is not None:
        # The log does not come along, so that nobody can play its windows again.
        assert path.parent.name == "ppo-residual-trace" and SCENARIOS[validation.scenario].trace is not None
        assert validation.split == "eval" and np.isfinite(validation.objective)
        with pytest.raises(ScenarioError, match="replays a request log: give its path"):
            Batch(held_out_scenario(validation.scenario, **asked), 1)
        return
    scenario = held_out_scenario(validation.scenario, **asked)
    policy = load_policy(str(path), scenario)
    again = evaluate("again", policy, scenario, validation.episodes, validation.first_seed)
    # The numbers of one machine are not to be expected to the last bit on another.
    assert again.objective.mean() == pytest.approx(validation.objective, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "agents", "best", "informed", "untold"),
    [
        ("paper", None, "cmu", 1.005, 1.005),
        ("paper-spike", None, "cmu", 1.005, 1.005),
        ("workflow", None, "receding-horizon", 1.005, 1.005),
        ("serverless", None, "receding-horizon", 1.0, 1.01),
        ("serverless", 2, "receding-horizon", 1.0, 1.0),
        ("serverless", 16, "receding-horizon", 1.0, 1.0),
        ("llm", None, "receding-horizon-batch", 1.005, 1.01),
        ("team", None, "receding-horizon-batch", 1.005, 1.005),
        ("fleet", None, "receding-horizon", 1.0, 1.0),
    ],
)
def test_the_universal_one_is_close_to_the_best_baseline_everywhere(name, agents, best, informed, untold):
    scenario = held_out_scenario(name, agents=agents)
    episodes = 10 if scenario.varies and len(scenario.agents) < 64 else 1

    def mean(policy):
        return evaluate("own", policy, scenario, episodes, 10000).objective.mean()

    base = mean(policy_for(best, name))
    for bill_s, most in ((scenario.bill_s, informed), (None, untold)):
        own = Allocator.pretrained(agents=scenario.agent_names, bill_s=bill_s)
        assert mean(own.decide) <= most * base


# What team 2003 asks for looks like the calls of `llm`, whose objective is another.
@pytest.mark.parametrize(
    ("name", "team", "most"),
    [
        ("universal", 2000, 0.99),
        ("ppo-mpc-priced-magentic", 2000, 0.97),
        ("universal", 2003, 1.005),
        # Its short calls go to and fro between two agents, so that constant shares are the best.
        ("universal", 4017, 1.0),
    ],
)
def test_sessions_of_a_team_that_they_never_saw_are_served_well(name, team, most, tmp_path):
    main_of("made_up_sessions.py")(tmp_path, teams=1, sessions=40, first_seed=team, scenario="magentic")
    scenario = held_out_scenario("magentic", trace=tmp_path / f"{team}.csv")
    policies = (
        load_policy(f"{PRETRAINED / name}/seed-0.npz", scenario),
        policy_for("receding-horizon", scenario),
    )
    own, base = (evaluate("own", each, scenario, 20, 10000).objective.mean() for each in policies)
    assert own < most * base


def test_an_allocator_that_does_not_come_with_the_package_is_refused():
    with pytest.raises(
        AllocatorError, match="no allocator 'universe' comes with the package; there are linear-"
    ):
        Allocator.pretrained("universe")
    assert Allocator.pretrained("ppo-residual-bursty/seed-1", agents=["a", "b"]).agents == ("a", "b")


@pytest.mark.parametrize(
    "name", ["ppo-residual-serverless", pytest.param("ppo-shared-warm-serverless", marks=pytest.mark.slow)]
)
def test_those_for_serverless_beat_the_best_baseline(name):
    scenario = held_out_scenario("serverless")
    base = evaluate("base", policy_for("receding-horizon", "serverless"), scenario, 60, FIRST_VALIDATION_SEED)
    policies = load_policies(str(PRETRAINED / name), scenario)
    assert len(policies) == 5
    for policy in policies:
        own = evaluate("own", policy, scenario, 60, FIRST_VALIDATION_SEED)
        assert own.objective.mean() < 0.99 * base.objective.mean()


@pytest.mark.parametrize(
    "name", ["bursty", *(pytest.param(name, marks=pytest.mark.slow) for name in ("diurnal", "workflow"))]
)
def test_those_for_another_scenario_beat_its_best_baseline(name):
    scenario = held_out_scenario(name)
    base = evaluate("base", policy_for("receding-horizon", name), scenario, 30, FIRST_VALIDATION_SEED)
    policies = load_policies(str(PRETRAINED / f"ppo-residual-{name}"), scenario)
    own = [evaluate("own", policy, scenario, 30, FIRST_VALIDATION_SEED).objective for policy in policies]
    assert len(own) == 5
    assert np.mean(own) < base.objective.mean()


def test_those_trained_on_four_agents_beat_algorithm_1_on_sixty_four():
    scenario = held_out_scenario("fleet")
    algorithm_1 = evaluate("adaptive", policy_for("adaptive", "fleet"), scenario, 3, FIRST_VALIDATION_SEED)
    policies = load_policies(str(PRETRAINED / "ppo-shared-serverless"), scenario)
    assert len(policies) == 5
    for policy in policies:
        own = evaluate("own", policy, scenario, 3, FIRST_VALIDATION_SEED)
        assert (own.objective < 0.8 * algorithm_1.objective).all()


def test_a_seed_is_named_with_what_it_is_a_seed_of():
    assert list(named(["adaptive", "runs/my-ppo/seed-0", "pretrained/shared.npz"])) == [
        "adaptive",
        "my-ppo/seed-0",
        "shared",
    ]


def test_the_figure_of_a_burst(tmp_path, capsys):
    shutil.copy(SERVERLESS / "seed-0.npz", tmp_path / "learned.npz")
    policies = ("receding-horizon", str(tmp_path / "learned.npz"))
    draw_burst(BurstFigureConfig(policies=policies, episodes=3, seconds=20.0, out=tmp_path / "burst.png"))
    assert (tmp_path / "burst.png").stat().st_size > 10_000
    assert "seed 1000" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        call(draw_burst, BurstFigureConfig(policies=policies, episodes=0))
    assert "episodes must be at least 1" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cluster-small", "cluster-nodes"])
def test_those_for_a_cluster_beat_the_baseline_that_they_correct(name):
    scenario = held_out_scenario(name)
    base = evaluate("demand", policy_for("demand", scenario), scenario, 60, FIRST_VALIDATION_SEED)
    policies = load_policies(str(PRETRAINED / f"linear-cluster-{name}"), scenario)
    own = [evaluate("own", policy, scenario, 60, FIRST_VALIDATION_SEED).objective for policy in policies]
    assert len(own) == 5
    assert np.mean(own) < 0.98 * base.objective.mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "corrected"),
    [
        ("llm", "receding-horizon-batch"),
        ("team", "receding-horizon"),
        ("magentic", "receding-horizon-batch"),
    ],
)
def test_those_for_calls_beat_the_baseline_that_they_correct(name, corrected):
    scenario = held_out_scenario(name)
    base = evaluate("base", policy_for(corrected, scenario), scenario, 200, FIRST_VALIDATION_SEED)
    policies = load_policies(str(PRETRAINED / f"linear-residual-{name}"), scenario)
    own = [evaluate("own", policy, scenario, 200, FIRST_VALIDATION_SEED).objective for policy in policies]
    gained = base.objective - np.mean(own, axis=0)
    assert len(own) == 5
    assert gained.mean() > 3 * gained.std(ddof=1) / np.sqrt(len(gained))


def test_those_trained_on_four_gpus_beat_algorithm_1_on_thirty_two():
    scenario = held_out_scenario("cluster-fleet")
    policies = load_policies(str(PRETRAINED / "linear-cluster-cluster-small"), scenario)
    names = {"own": policies[0], "hierarchical": policy_for("hierarchical", scenario)}
    own, base = (evaluate(*each, scenario, 1, FIRST_VALIDATION_SEED).objective for each in names.items())
    assert (own < 0.8 * base).all()

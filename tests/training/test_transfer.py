"""The fluid twin of a scenario of calls, and what suits it played call by call."""

import json

import numpy as np
import pytest

import training.transfer
from baselines import policy_for
from gpualloc_env import SCENARIOS, Workflow, load_scenario
from gpualloc_env.metrics import objectives
from training.cli import run as run_command
from training.evaluation.evaluate import rollout
from training.evaluation.fluid_twin import fluid_twin
from training.transfer import TransferConfig, kendall, main, ranks


def test_the_twin_of_a_workflow_has_its_visits_its_load_and_its_price_of_a_task():
    team = SCENARIOS["team"]
    twin = fluid_twin(team)
    assert twin.service == "fluid" and twin.agents == team.agents and twin.platform == team.platform
    assert twin.visits[:, 0] == pytest.approx(team.visits[:, 0])
    assert twin.utilisation(np.array([1.0, 0, 0, 0])) == pytest.approx(
        team.utilisation(np.array([1.0, 0, 0, 0]))
    )
    # A task has 1/.45 calls of the coordinator and .55/.45 · 2 of specialists, at .1 for each second.
    assert twin.objective.latency == pytest.approx(0.1 * (1 + 0.55 * 2) / 0.45)
    assert twin.objective.cost == 1 and twin.objective.task == 0


def test_a_specialist_of_one_returns_all_that_it_was_handed():
    tasks = Workflow(entry="coordinator", end=0.5, specialists=("nlp",))
    twin = fluid_twin(SCENARIOS["team"].model_copy(update={"tasks": tasks}))
    assert twin.routing == ((0, 0.5, 0, 0), (1, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))


def test_the_twin_of_independent_calls_has_no_routing():
    twin = fluid_twin(SCENARIOS["llm"])
    assert twin.routing is None and twin.objective == SCENARIOS["llm"].objective


@pytest.mark.parametrize("name", ["serverless", "magentic", "cluster-small"])
def test_a_fluid_recorded_sessions_and_a_cluster_have_no_twin(name):
    with pytest.raises(ValueError, match=f"scenario '{name}' has no fluid twin"):
        fluid_twin(load_scenario(name))


def test_ranks_and_kendalls_tau_by_hand():
    results = {"a": [np.array([1.0]), np.array([3.0])], "b": [np.array([2.0]), np.array([1.0])]}
    results["c"] = [np.array([3.0]), np.array([4.0])]
    assert ranks(results, 0) == {"a": 1, "b": 2, "c": 3} and ranks(results, 1) == {"a": 2, "b": 1, "c": 3}
    # Of three pairs one is in the other order.
    assert kendall(results, 1) == pytest.approx(1 / 3)


def test_the_command_plays_what_suits_the_fluid_call_by_call(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ("--policies", "static", "square-root-staffing", "cmu", "--steps", "20", "--episodes", "3")
    run_command(main, TransferConfig, [*arguments, "--out", str(out)])
    found = json.loads((out / "transfer.json").read_text(), parse_constant=pytest.fail)["policies"]
    calls = load_scenario("team", steps=20)
    twin = fluid_twin(calls).with_key_of(fluid_twin(SCENARIOS["team"]))
    written = load_scenario(out / "team-fluid.toml")
    assert written.model_dump(exclude={"name", "description"}) == twin.model_dump(
        exclude={"name", "description"}
    )
    for name, columns in found.items():
        pairs = {"fluid": (twin, twin), "calls": (twin, calls), "calls, own constants": (calls, calls)}
        for column, (tuned_for, scenario) in pairs.items():
            batch = rollout(policy_for(name, tuned_for.key), scenario, 3, 10_000, record=False)
            assert columns[column]["mean"] == pytest.approx(objectives(batch).mean())
    # Its constants differ by what they were tuned on; a policy without constants is the same.
    staffing, cmu = found["square-root-staffing"], found["cmu"]
    assert staffing["calls, own constants"]["mean"] != staffing["calls"]["mean"]
    assert cmu["calls, own constants"] == cmu["calls"]
    assert "Kendall's τ" in capsys.readouterr().out


def test_one_policy_is_refused_before_anything_is_played(tmp_path):
    with pytest.raises(ValueError, match="policies has static alone, and an order takes two"):
        main(TransferConfig(policies=("static",), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_out_that_cannot_be_written_is_refused_before_anything_is_played(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(training.transfer, "played", lambda *_: pytest.fail("something was played"))
    with pytest.raises(FileExistsError, match="is not empty and holds no earlier results"):
        main(TransferConfig(policies=("static", "cmu"), out=tmp_path))

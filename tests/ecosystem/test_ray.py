"""Work that a Ray cluster of two workers shares has the results of this process, bit for bit."""

import csv
import json
import os
from functools import partial

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from support.log_samples import log_lines, write_log

pytest.importorskip("ray")
from ray.cluster_utils import Cluster

from baselines import lower_bounds
from baselines.processes import in_processes
from gpualloc_env import load_scenario
from training import compare, leaderboard, plan, study, tiers, train, transfer, tune, validate
from training.cli import run
from training.validation import closed_forms

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SHORT = ("--steps", "20", "--episodes", "3")
POLICIES = ("--policies", "adaptive", "receding-horizon")


@pytest.fixture(scope="module")
def address():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    import ray

    ray.shutdown()
    cluster.shutdown()


@pytest.mark.parametrize("scenario", ["serverless", "team"])
def test_bounds(address, scenario):
    scenario = load_scenario(scenario, steps=20)
    shared = lower_bounds(scenario, 4, 10000, workers=address)
    assert np.array_equal(shared, lower_bounds(scenario, 4, 10000, workers=1))


@pytest.mark.parametrize(
    ("command", "config", "files", "arguments"),
    [
        (
            compare,
            compare.CompareConfig,
            ("summary.json", "episodes.csv"),
            (*POLICIES, "clairvoyant", *SHORT),
        ),
        (
            leaderboard,
            leaderboard.LeaderboardConfig,
            ("leaderboard.csv", "leaderboard.md"),
            ("--scenarios", "serverless", "team", *POLICIES, *SHORT),
        ),
        (transfer, transfer.TransferConfig, ("transfer.json",), (*POLICIES, *SHORT)),
        (validate, validate.ValidateConfig, ("validation.md",), ("--quick",)),
        (
            tiers,
            tiers.TiersConfig,
            ("tiers.json",),
            ("--scenario", "cluster-small", "--keep-alive-s", "9", *SHORT),
        ),
    ],
    ids=["compare", "leaderboard", "transfer", "validate", "tiers"],
)
def test_files_of_a_command(address, command, config, files, arguments, tmp_path, monkeypatch):
    few = ("M/D/1", "M/D/1 by step", "drain")
    monkeypatch.setattr(closed_forms, "STUDIES", {name: closed_forms.STUDIES[name] for name in few})
    monkeypatch.setattr(validate, "find_spec", lambda name: None)
    run(command.main, config, [*arguments, "--out", str(tmp_path / "here")])
    run(command.main, config, [*arguments, "--out", str(tmp_path / "there"), "--ray", address])
    for name in files:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_a_plan(address, tmp_path):
    write_log(tmp_path / "log.csv", log_lines("plain", 100))
    given = (str(tmp_path / "log.csv"), "--sweep", "2", "3", *POLICIES)
    tables = []
    for out, ray in (("here", ()), ("there", ("--ray", address))):
        run(plan.main, plan.PlanConfig, [*given, "--out", str(tmp_path / out), *ray])
        tables.append(json.loads((tmp_path / out / "plan.json").read_text(encoding="utf-8"))["allocators"])
    assert tables[0] == tables[1]


def test_a_mistake_in_a_worker_is_the_mistake_here(address):
    with pytest.raises(ZeroDivisionError, match="by zero"):
        in_processes(partial(divmod, 1), [1, 0, 2], address, None)


def test_a_worker_shares_nothing_with_more_processes(address):
    def pids(tasks):
        return {os.getpid(), *in_processes(lambda _: os.getpid(), tasks, None, None)}

    assert [len(found) for found in in_processes(pids, [range(8), range(8)], address, None)] == [1, 1]


def test_tuned_constants(address, tmp_path):
    given = ("--policies", "queue-aware", "hysteresis", "--trials", "3", "--episodes", "4", "--steps", "20")
    for out, ray in (("here", ()), ("there", ("--ray", address))):
        run(tune.main, tune.TuneConfig, [*given, "--out", str(tmp_path / f"{out}.toml"), *ray])
    assert (tmp_path / "there.toml").read_bytes() == (tmp_path / "here.toml").read_bytes()


def test_the_seeds_that_confirm_a_study(address, tmp_path):
    steps = ("--total-steps", "2048", "--validate-every", "1024", "--confirm-steps", "2048", "--steps", "20")
    given = ("--trials", "2", "--seeds", "1", "--confirm-seeds", "2", "--validation-episodes", "2", *steps)
    for out, ray in (("here", ()), ("there", ("--ray", address))):
        run(study.main, study.StudyConfig, [*given, "--out", str(tmp_path / out), "--no-progress", *ray])
    tables = []
    for out in ("here", "there"):
        with (tmp_path / out / "trials.csv").open(encoding="utf-8") as file:
            tables.append([{**row, "seconds": None} for row in csv.DictReader(file)])
    assert tables[0] == tables[1] and len(tables[0]) == 2


def test_the_seeds_of_a_training(address, tmp_path):
    steps = ("--total-steps", "16", "--validate-every", "8", "--steps", "20", "--num-envs", "2")
    small = ("--rollout-steps", "4", "--batch-size", "4", "--hidden", "4", "4", "--validation-episodes", "2")
    given = ("--scenario", "cluster-fleet", "--allocator", "ppo-cluster-hierarchical", "--seeds", "2")
    for out, ray in (("here", ()), ("there", ("--ray", address))):
        out = ("--out", str(tmp_path / out))
        run(train.main, train.TrainConfig, [*given, *steps, *small, *out, "--no-progress", *ray])
    for seed in ("seed-0", "seed-1"):
        here, there = (tmp_path / place / seed for place in ("here", "there"))
        assert (there / "result.json").read_bytes() == (here / "result.json").read_bytes()
        ours, theirs = (PPO.load(place / "model.zip").policy.state_dict() for place in (here, there))
        assert all(torch.equal(theirs[name], each) for name, each in ours.items())
    # Neither who trains nor where is a setting of the run: it goes on, or is complete, without Ray too.
    run(train.main, train.TrainConfig, [*given, *steps, *small, "--out", str(tmp_path / "there")])


def test_an_address_where_nobody_answers_is_refused_before_any_work(tmp_path, capsys):
    import ray

    ray.shutdown()
    with pytest.raises(SystemExit):
        run(compare.main, compare.CompareConfig, ["--ray", "nowhere", "--out", str(tmp_path / "out")])
    assert "no Ray cluster answers at 'nowhere'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

"""A log that names a model in each request becomes a cluster, and is replayed at its own stamps."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from baselines import policy_for
from gpualloc_env import TraceError, load_scenario
from gpualloc_env.traces.formats import read_log
from training import tiers
from training.cli import call, run
from training.cluster import ClusterConfig, main
from training.evaluation.evaluate import rollout

MODELS = "time_s,model,prompt_tokens,output_tokens\n"
IMAGES = ",gmt_create,exec_time_seconds,checkpoint_model_version_id\n"


def log_of(tmp_path, header, lines, name="log.csv"):
    path = tmp_path / name
    path.write_text(header + "".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def calls(tmp_path):
    """Two requests a second for 1,000 s: of four, two are for a Llama, one for a Phi, one for one unknown."""
    names = ("meta-llama/Llama-2-7b-hf", "ours/phi@1", "meta-llama/Llama-2-7b-hf", "phi-2")
    lines = [f"{100 + k / 2},{names[k % 4]},{100 + k % 50},{1 + k % 20}" for k in range(2000)]
    return log_of(tmp_path, MODELS, lines)


def test_the_models_of_a_log_become_agents_in_order_of_popularity(calls, tmp_path, capsys):
    out = tmp_path / "mine.toml"
    run(
        main,
        ClusterConfig,
        [str(calls), "--model", "phi-2", "--nodes", "2", "--gpus", "1", "--out", str(out)],
    )
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "one instance of each model takes" in said
        and "2000 requests over 1000 s, at their own times: " in said
    )
    scenario = load_scenario(out, split="all")
    assert scenario.agent_names == ("meta-llama-Llama-2-7b-hf", "ours-phi-1", "phi-2")
    assert [agent.model for agent in scenario.agents] == ["llama-2-7b", "phi-2", "phi-2"]
    assert scenario.agents[0].prompt_tokens == pytest.approx(124) and scenario.num_gpus == 2
    batch = rollout(policy_for("popularity", scenario), scenario, 3, 0, record=True)
    for b in range(3):
        tasks = batch.tasks(b)
        # Windows of 300 s from the first request on, at the log's own times.
        assert tasks.time == pytest.approx(np.arange(600) / 2)
        assert tasks.agent[:4].tolist() == [0, 1, 0, 2]
    assert batch.history["served"].sum() > 0.9 * 3 * 600


def test_what_a_longer_keep_alive_buys_the_models_of_a_log(tmp_path):
    # Every 20 s one of five models in turn, so each is idle for 100 s.
    log = log_of(tmp_path, MODELS, [f"{20 * k},model-{k % 5},100,10" for k in range(61)])
    given = [
        str(log),
        "--model",
        "phi-2",
        "--nodes",
        "1",
        "--gpus",
        "1",
        "--out",
        str(tmp_path / "mine.toml"),
    ]
    run(main, ClusterConfig, given)
    times = ["--sleep-after-s", "10", "150", "--keep-alive-s", "60", "900", "--split", "all"]
    asked = ["--scenario", str(tmp_path / "mine.toml"), "--policies", "lru", *times, "--episodes", "4"]
    run(tiers.main, tiers.TiersConfig, [*asked, "--out", str(tmp_path / "out")])
    rows = json.loads((tmp_path / "out" / "tiers.json").read_text())["rows"]
    met = {(row["sleep_after_s"], row["keep_alive_s"]): row["metrics"] for row in rows}
    gone, asleep, stays = met[10, 60], met[10, 900], met[150, 900]
    assert gone["cold_calls"] > 0.4 and asleep["woken_calls"] > 0.4 and asleep["cold_calls"] == 0
    assert stays["hot_calls"] == 1


def test_a_log_shorter_than_an_episode_asks_for_fewer_steps_and_gets_them(tmp_path, capsys):
    log = log_of(tmp_path, MODELS, [f"{k},phi-2,100,10" for k in range(200)])
    with pytest.raises(SystemExit):
        run(main, ClusterConfig, [str(log), "--out", str(tmp_path / "mine.toml")])
    assert "ask for fewer steps" in capsys.readouterr().err
    run(main, ClusterConfig, [str(log), "--steps", "40", "--out", str(tmp_path / "mine.toml")])
    assert load_scenario(tmp_path / "mine.toml").steps == 40


def test_requests_for_less_popular_models_are_left_out_and_counted(calls, tmp_path, capsys):
    out = tmp_path / "mine.toml"
    run(main, ClusterConfig, [str(calls), "--models", "1", "--out", str(out)])
    assert "1000 of 2000 requests are left out, which name other agents" in capsys.readouterr().out
    scenario = load_scenario(out, split="all")
    batch = rollout(policy_for("spread", scenario), scenario, 1, 0, record=False)
    assert batch.tasks(0).time == pytest.approx(np.arange(300))
    whole = scenario.model_copy(
        update={"trace": scenario.trace.model_copy(update={"leave_out_others": False}), "name": "whole"}
    )
    with pytest.raises(TraceError, match=r"log\.csv, line 3, field agent: 'ours-phi-1' is no agent"):
        whole.source()


def test_times_of_execution_are_the_work_of_calls_served_one_by_one(tmp_path):
    lines = [f"{k},2024-11-06 {10 + k // 60}:{k % 60:02d}:00,{1.5 + k % 2},{7 + k % 3}" for k in range(120)]
    log = log_of(tmp_path, IMAGES, lines)
    read = read_log(log)
    assert read.agent_names == ("7", "8", "9") and read.output_tokens is None
    assert read.prompt_tokens[:2].tolist() == [1500, 2500] and read.time_s[:2] == pytest.approx([0, 60])
    out = tmp_path / "images.toml"
    run(main, ClusterConfig, [str(log), "--model-mb", "6500", "--nodes", "1", "--out", str(out)])
    scenario = load_scenario(out, split="all")
    assert scenario.agents[0].alone_s(1500, 1) == pytest.approx(1.5) and scenario.agents[0].model_mb == 6500
    batch = rollout(policy_for("spread", scenario), scenario, 1, 0, record=True)
    calls = batch.service.calls[0, : batch.service.run["calls"][0]]
    # A sixth of a GPU or more each: whoever is alone on it has all that is asked for.
    assert (calls["finished"][:4] - calls["issued"][:4] >= [1.5, 2.5, 1.5, 2.5]).all()


@pytest.mark.parametrize(
    ("header", "line", "words", "message"),
    [
        (MODELS, "{},nobody,5,5", (), "model 'nobody' is not in the catalogue"),
        (MODELS, "{},phi-2,x,5", (), "line 2, field prompt_tokens: 'x' should be a number of tokens"),
        (IMAGES, "0,2024-11-06 10:00:{:02d},1.0,7", (), "give the size of its models with --model-mb"),
        (IMAGES, "0,2024-11-06 10:00:{:02d},,7", ("--model-mb", "1"), "line 2, field exec_time_seconds: ''"),
        ("time_s,prompt_tokens,output_tokens\n", "{},5,5", (), "does not name a model and its tokens"),
        (MODELS, "{},codellama-34b,2000,5", ("--calls", "500"), "so it could stand nowhere"),
        (MODELS, "{},phi-2,5,5", (), "none of them for split 'train'; ask for fewer steps"),
    ],
)
def test_a_log_that_makes_no_cluster_is_refused_with_a_remedy(header, line, words, message, tmp_path, capsys):
    log = log_of(tmp_path, header, [line.format(k) for k in range(20)])
    with pytest.raises(SystemExit):
        run(main, ClusterConfig, [str(log), *words, "--out", str(tmp_path / "out.toml")])
    assert message in capsys.readouterr().err and not (tmp_path / "out.toml").exists()


@pytest.mark.parametrize("name", ["-", "pipe"])
def test_a_log_that_can_be_read_only_once_is_refused_before_it_is_read(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(TraceError, match=f"{name}: making a cluster reads its log more than once; give a f"):
        main(ClusterConfig(Path(name), Path("out.toml")))
    assert not Path("out.toml").exists()


def test_a_model_that_was_never_measured_is_refused_in_one_line(tmp_path, capsys):
    log = tmp_path / "log.csv"
    log.write_text("time_s,model,prompt_tokens,output_tokens\n0,a,1,1\n9,b,1,1\n")
    with pytest.raises(SystemExit):
        call(main, ClusterConfig(log, tmp_path / "c.toml", model="llama-4"))
    error = capsys.readouterr().err
    assert "model = 'llama-4'" in error and error.count("\n") == 1 and not (tmp_path / "c.toml").exists()

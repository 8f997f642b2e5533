"""What callers get wrong: units, names, threads, and a log that goes away."""

import json
import logging
import pickle
import threading
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from support.places import ROOT

import gpualloc_env  # noqa: F401  registers the environment
from gpualloc_env.allocator import Allocator, AllocatorError

PRETRAINED = ROOT / "training" / "pretrained"
RAW = {
    "queue": [3, 10],
    "inflow": [3, 1],
    "rate": [5, 1],
    "share": [0.5, 0.5],
    "idle": [0, 0],
    "loading": [0, 0],
    "oldest_age": [0.1, 3],
    "throughput": [100, 12],
    "kappa": [0.5, 0],
    "min_share": [0.1, 0.4],
    "priority": [1, 2],
    "cold_start": [2.5, 10],
    "slo": [1, 5],
    "dt": 0.5,
    "gpus": 1,
    "max_share": 1,
    "slice": 0,
    "reallocation_s": 0.1,
    "deadband": 0.02,
    "keep_alive_s": 10,
}
AGENTS = ["router", "writer"]


@pytest.fixture
def allocator():
    return Allocator.load(PRETRAINED / "ppo-residual-serverless" / "seed-0.npz", agents=AGENTS)


def test_numbers_by_the_agents_names_are_those_in_their_order(allocator):
    by_name = {
        name: dict(zip(reversed(AGENTS), reversed(value), strict=True)) if isinstance(value, list) else value
        for name, value in RAW.items()
    }
    assert allocator.decide(by_name).tolist() == allocator.decide(RAW).tolist()
    assert not allocator.fallbacks
    with pytest.raises(ValueError, match="queue must have a number for each of router, writer, got"):
        allocator.decide({**RAW, "queue": {"router": 3, "reader": 1}})


@pytest.mark.parametrize(("name", "hint"), [("queues", "did you mean 'queue'"), ("foo", "The fields are")])
def test_an_unknown_field_is_refused(allocator, name, hint):
    with pytest.raises(ValueError, match=f"unknown field '{name}'.*{hint}"):
        allocator.decide({**RAW, name: [1, 2]})


@pytest.mark.parametrize("given", [[1, 2], None, "view"])
def test_what_is_no_view_is_refused(allocator, given):
    with pytest.raises(ValueError, match="decide takes a View or a mapping"):
        allocator.decide(given)


@pytest.mark.parametrize(
    ("field", "value"), [("share", [50, 50]), ("share", [2, 2]), ("share", [1.0, 0.1]), ("share", [1.2, 0])]
)
def test_shares_beyond_the_platform_are_out_of_range(allocator, field, value):
    allocator.decide({**RAW, field: value})
    assert allocator.last == ("the input is out of range", "Algorithm 1")


def test_shares_of_several_gpus_are_sound_where_there_are_several(allocator):
    allocator.decide({**RAW, "gpus": 8, "max_share": 4, "share": [4, 4]})
    assert allocator.last is None


def test_ages_in_milliseconds_are_doubted_once(allocator, caplog):
    with caplog.at_level(logging.WARNING):
        allocator.decide({**RAW, "oldest_age": [100, 3000]})
        allocator.decide({**RAW, "oldest_age": [100, 3000]})
    assert [record.getMessage() for record in caplog.records] == [
        "oldest_age of router is 100 s although only 3 requests wait; is it in milliseconds?"
    ]
    assert not allocator.fallbacks


def test_old_requests_in_a_long_queue_are_not_doubted(allocator, caplog):
    allocator.decide({**RAW, "queue": [9000, 900], "oldest_age": [100, 3000]})
    assert not caplog.records


def test_calls_that_run_for_long_are_not_doubted(allocator, caplog):
    allocator.decide({**RAW, "oldest_age": [100, 3000], "iteration": [0.02, 0.02]})
    assert not caplog.records
    allocator.decide({**RAW, "oldest_age": [100, 3000], "iteration": [0, 0.02]})
    assert "oldest_age of router is 100 s" in caplog.text


@pytest.mark.parametrize("agents", ["router", [], ["a", "a"], 3, ["a", 1]])
def test_names_that_are_no_list_of_different_ones_are_refused(agents):
    with pytest.raises(AllocatorError, match="agents must be"):
        Allocator.load(PRETRAINED / "ppo-shared-serverless" / "seed-0.npz", agents=agents)


def test_a_perceptron_decides_for_the_agents_of_its_training_in_their_order_alone():
    path = PRETRAINED / "ppo-serverless" / "seed-0.npz"
    assert Allocator.load(path, agents=["coordinator", "nlp", "vision", "reasoning"]).decisions == 0
    with pytest.raises(AllocatorError, match=r"trained for the agents coordinator, nlp.*in this order"):
        Allocator.load(path, agents=["nlp", "coordinator", "vision", "reasoning"])


def test_each_thread_hears_of_its_own_fallback(allocator):
    broken, seen = {**RAW, "queue": [float("nan"), 1]}, {}
    barrier = threading.Barrier(8)

    def decide(k):
        barrier.wait()
        for _ in range(200):
            allocator.decide(broken if k % 2 else RAW)
            seen.setdefault(k, set()).add(allocator.last)

    threads = [threading.Thread(target=decide, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fallback = ("the input is not finite", "Algorithm 1")
    assert all(seen[k] == ({fallback} if k % 2 else {None}) for k in range(8))
    assert allocator.decisions == 1600 and allocator.fallbacks[fallback] == 800


@pytest.mark.parametrize("kind", ["ppo", "ppo-shared", "ppo-residual"])
def test_an_allocator_can_be_sent_to_another_process(kind):
    sent = Allocator.load(PRETRAINED / f"{kind}-serverless" / "seed-0.npz")
    received = pickle.loads(pickle.dumps(sent))
    observation = np.random.default_rng(0).random((4, 26), dtype=np.float32)
    assert np.array_equal(received(observation), sent(observation)) and received.decisions == 1


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_shadow_goes_on_after_its_log_was_rotated(allocator, tmp_path):
    path = tmp_path / "shadow.jsonl"
    with allocator.shadow(path) as shadow:
        shadow(RAW, np.array([0.5, 0.5]))
        path.rename(tmp_path / "shadow.jsonl.1")
        shadow(RAW, np.array([0.5, 0.5]))
        path.unlink()
        shadow(RAW, np.array([0.5, 0.5]))
    assert shadow.errors == 0
    assert len(lines(tmp_path / "shadow.jsonl.1")) == len(lines(path)) == 1


def test_live_shares_by_name_are_those_of_the_same_agents(allocator, tmp_path):
    path = tmp_path / "shadow.jsonl"
    with allocator.shadow(path) as shadow:
        shadow(RAW, {"writer": 0.25, "router": 0.75})
        shadow(RAW, {"writer": 1.0})
    seen, refused = lines(path)
    assert seen["live"] == [0.75, 0.25] and shadow.errors == 1
    assert "live must have a number for each of router, writer, got {'writer': 1.0}" in refused["error"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_raises_nothing_to_the_end_of_the_block(allocator):
    with allocator.shadow("/dev/full") as shadow:
        shadow(RAW, np.array([0.5, 0.5]))
        assert shadow.errors >= 1


def test_threads_share_a_shadow(allocator, tmp_path):
    with allocator.shadow(tmp_path / "shadow.jsonl") as shadow:
        threads = [
            threading.Thread(target=lambda: [shadow(RAW, np.array([0.5, 0.5])) for _ in range(50)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(lines(tmp_path / "shadow.jsonl")) == 200 and shadow.errors == 0


def test_what_an_environment_shows_is_never_doubted(caplog):
    allocator = Allocator.load(PRETRAINED / "ppo-residual-serverless" / "seed-0.npz")
    env = gym.make("GPUAlloc-v0", scenario="paper-overload")
    env.reset(seed=0)
    truncated = False
    while not truncated:
        *_, truncated, _ = env.step(allocator.decide(env.unwrapped.view))
    assert not allocator.fallbacks
    assert not [each for each in caplog.records if each.name.startswith("gpualloc_env.allocator")]

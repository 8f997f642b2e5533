"""Speed of stepping, episodes and their resets included, as multiples of CartPole-v1.

A benchmark measures; nothing here fails because a machine is slow.
"""

import os

import pytest
from support.memory import bytes_per_env
from support.stepping import SINGLE_STEPS, single, vector, whole_episodes

from gpualloc_env import SCENARIOS, load_scenario
from gpualloc_env.simulation.threads import VARIABLE

MANY = 262_144
PARTS = 7  # of the 301 calls of a serverless episode


def described(name, scenario, num_envs, threads, record=False):
    """Columns of a row that are not measured."""
    return {
        "name": name,
        "scenario": scenario.name,
        "num_envs": num_envs,
        "agents": len(scenario.agents),
        "threads": threads,
        "bytes_per_env": bytes_per_env(scenario, record),
    }


def other(name, num_envs):
    return {
        "name": name,
        "scenario": None,
        "num_envs": num_envs,
        "agents": None,
        "threads": 1,
        "bytes_per_env": None,
    }


def test_synchronous_cartpole(against_cartpole):
    loop = vector("CartPole-v1", 64, 50, mode="sync")
    against_cartpole(loop, rounds=10, **other("Gymnasium's SyncVectorEnv of CartPole-v1", 64))


@pytest.mark.parametrize("num_envs", [1024, 16384])
def test_native_cartpole(against_cartpole, num_envs):
    loop = vector("CartPole-v1", num_envs, 300)
    rounds = 20 if num_envs == 1024 else 5
    against_cartpole(loop, rounds, **other("Gymnasium's native CartPole-v1", num_envs))


def test_single_environment(against_cartpole):
    loop = single("GPUAlloc-v0", SINGLE_STEPS)
    scenario = loop.env.unwrapped.scenario
    against_cartpole(loop, rounds=40, **described("`gym.make`, `info` included", scenario, 1, 1, record=True))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("num_envs", [64, 1024, 16384, MANY])
def test_vector_environment(against_cartpole, monkeypatch, num_envs, threads):
    scenario = load_scenario("serverless")
    # Room for the batch, and for what a step makes beside it.
    if 2 * num_envs * bytes_per_env(scenario) > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        pytest.skip("the machine has too little memory")
    monkeypatch.setenv(VARIABLE, str(threads))
    rounds, parts = {64: (40, 1), 1024: (20, 1), 16384: (3, PARTS), MANY: (1, PARTS)}[num_envs]
    loop = whole_episodes(num_envs, parts)
    against_cartpole(loop, rounds, parts, **described("`gym.make_vec`", scenario, num_envs, threads))


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "serverless"])
def test_scenario(against_cartpole, monkeypatch, scenario_arguments, name):
    monkeypatch.setenv(VARIABLE, "1")
    loop = whole_episodes(1024, **scenario_arguments[name])
    row = described("`gym.make_vec`", loop.env.unwrapped.scenario, 1024, 1)
    against_cartpole(loop, rounds=3 if name == "fleet" else 7, **row)


@pytest.mark.parametrize("agents", [4, 64, 1024, 16384])
def test_agents(against_cartpole, agents):
    scenario = load_scenario("serverless", agents=agents)
    loop = single("GPUAlloc-v0", scenario.steps, agents=agents)
    rounds = {4: 40, 64: 20, 1024: 10, 16384: 3}[agents]
    against_cartpole(loop, rounds, **described("`gym.make`, more agents", scenario, 1, 1, record=True))

"""Kernels are compiled once for a machine, anew where a source has changed, and do what they say.

What is asked of numba here it does not promise: the stamp of its cache, and three of its options.
"""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from numba.core.errors import NumbaError
from support.places import ROOT

from gpualloc_env.compiled import compiled, inlined, resolved

# The limit is lowered: compiling small functions passes it.
HURRIED = """
import numpy as np
from gpualloc_env import compiled
compiled.PATIENCE_S = 0.0
from gpualloc_env.simulation.random import exponential, seed_generator
generator = np.zeros(4, dtype=np.uint64)
seed_generator(generator, np.uint64(1))
"""
MORE = f"{HURRIED}exponential(generator, 1.0)\n"
# What a process of a pool does.
WORKERS = f"""
from multiprocessing import get_context
def work():
{"".join(f"    {line}" + chr(10) for line in MORE.splitlines())}
if __name__ == "__main__":
    for _ in range(2):
        worker = get_context("spawn").Process(target=work)
        worker.start()
        worker.join()
"""

COUNTED = """
import json
from numba.core import event

class Listener(event.Listener):
    compiled = 0
    def on_start(self, event): self.compiled += 1
    def on_end(self, event): pass

listener = Listener()
event.register("numba:compile", listener)
"""

# A kernel of each of three packages, which calls functions of the simulation.
KERNELS = (
    COUNTED
    + """
import numpy as np
from gpualloc_env.allocator.algorithm_1 import algorithm_1
from gpualloc_env.allocator.guardrails import encode_checked
from gpualloc_env.simulation.observation import View, packed_from
from baselines.online.water_filling import CLAIM, MINIMUM, share_at

observation, claims = np.empty((1, 1, 26), np.float32), np.ones(1, CLAIM)
claims["least"] = 0.0
encode_checked(packed_from(np.ones((20, 1, 1)), np.ones(7)), observation, np.zeros(1, np.int64))
half = np.full((1, 2), 0.5)
print(json.dumps({
    "allocator": float(observation[0, 0, 0]),
    "baselines": share_at(MINIMUM, claims[0], 2.0),
    "alone": algorithm_1(half, half, half, 1.0).tolist(),
    "compiled": listener.compiled,
}))
"""
)

SIMULATOR = (
    COUNTED
    + """
import gymnasium as gym
import numpy as np
import sys
from gpualloc_env import Allocator
env = gym.make("gpualloc_env:GPUAlloc-v0", steps=2)
observation, _ = env.reset(seed=0)
allocator = Allocator.load(sys.argv[1])
for _ in range(2):
    env.step(allocator(observation))
allocator.decide(env.unwrapped.view)
envs = gym.make_vec("GPUAlloc-v0", num_envs=3, steps=2)
envs.reset(seed=0)
envs.step(np.full((3, 4), 0.25))
print(json.dumps({"compiled": listener.compiled, "objective": env.unwrapped.episode_metrics()["objective"]}))
"""
)


def run(program, *arguments, folder=ROOT, **environment):
    """What a new process says, and complains of."""
    process = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return process.stdout, process.stderr


TWICE = """
from typing import NamedTuple
from gpualloc_env.compiled import compiled

class {name}(NamedTuple):
    value: float

@compiled
def twice(given):
    return 2.0 * given.value

print(twice({name}(1.5)))
"""


def test_what_was_compiled_for_a_class_that_is_no_more_is_compiled_again(tmp_path):
    for name in ("Once", "Renamed"):
        (tmp_path / "kernels.py").write_text(TWICE.format(name=name), encoding="utf-8")
        assert run("import kernels", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")[0] == "3.0\n"
    assert list((tmp_path / "__pycache__").glob("*.nbi"))


@pytest.mark.slow
def test_a_long_compilation_says_once_what_it_is_and_a_warm_cache_says_nothing(tmp_path):
    cold, more, warm = (run(each, NUMBA_CACHE_DIR=str(tmp_path))[1] for each in (HURRIED, MORE, MORE))
    # A later process compiles what the first did not call, and that may take longest.
    for said in (cold, more):
        assert said.startswith("compiling the simulator, once for this machine") and said.count("\n") == 1
    assert warm == ""


@pytest.mark.slow
def test_of_the_processes_of_a_pool_the_first_alone_says_that_it_compiles(tmp_path):
    program, cache = tmp_path / "pool.py", tmp_path / "cache"
    program.write_text(WORKERS)
    for expected in (1, 0):
        process = subprocess.run(
            [sys.executable, program],
            env={**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert process.stderr.count("compiling the simulator") == expected
        for kept in cache.rglob("*.nb?"):
            kept.unlink()


def test_a_second_process_compiles_nothing(exported):
    _, second = (json.loads(run(SIMULATOR, exported["npz"])[0]) for _ in range(2))
    assert second["compiled"] == 0 and np.isfinite(second["objective"])


@pytest.mark.slow
def test_a_changed_module_makes_machine_code_anew_where_another_package_calls_it(tmp_path):
    for package in ("gpualloc_env", "baselines"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))

    def result():
        return json.loads(run(KERNELS, folder=tmp_path)[0])

    def change(module, before, after):
        path = tmp_path / module
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1
        path.write_text(text.replace(before, after), encoding="utf-8")

    first, again = result(), result()
    assert first.pop("compiled") > 3 and again.pop("compiled") == 0 and again == first
    # 1 / (1 + 1), and the share with which κ = 1 gives half the throughput: 0.5 / (2 - 0.5).
    assert first["allocator"] == 0.5 and first["baselines"] == pytest.approx(1 / 3)
    change("gpualloc_env/simulation/observation.py", "row.queue = squash(", "row.queue = 0.5 * squash(")
    second = result()
    assert second.pop("compiled") > 0 and second == {**first, "allocator": 0.25}
    change(
        "gpualloc_env/simulation/curves.py", "return multiple * kappa /", "return 2.0 * multiple * kappa /"
    )
    third = result()
    assert third.pop("compiled") > 0 and third == {**second, "baselines": pytest.approx(2 / 3)}
    assert result()["compiled"] == 0


@inlined
def _twice(value):
    return 2.0 * value


@compiled
def double(values):
    """Double numbers in place and return their sum."""
    total = 0.0
    for k in range(values.shape[0]):
        values[k] = _twice(values[k])
        total += values[k]
    return total


@compiled
def allocate(count):
    """Something that a compiled function must not do."""
    return np.zeros(count).sum()


def test_a_compiled_function_and_its_machine_code_do_the_same():
    values = np.arange(4.0)
    assert double(values) == 12.0 and values.tolist() == [0, 2, 4, 6]
    assert resolved(double, values)(values) == 24.0 and values.tolist() == [0, 4, 8, 12]


def test_a_compiled_function_cannot_allocate():
    with pytest.raises(NumbaError, match="Only accept returning of array passed into the function"):
        allocate(3)

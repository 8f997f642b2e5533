"""Policies by name: a baseline of the registry, an exported allocator, or a training run."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from baselines import POLICIES, Policy, policy_for
from gpualloc_env.allocator import Allocator
from gpualloc_env.observation import View, observe
from gpualloc_env.scenario import Scenario
from gpualloc_env.state import AnyArray, Array
from training.action_transform import SimplexActions


class AgentsError(ValueError):
    """A policy that was trained for other agents than a scenario has."""


MODEL, TRANSFORM, NORMALISER = "model.zip", "transform.json", "normaliser.pkl"
"""Files of a training run."""
EXPORTED = (".npz", ".onnx")

_LOG = logging.getLogger(__name__)


def load_policy(name: str, scenario: Scenario) -> Policy:
    """Return the policy of a name in `POLICIES`, of an exported file, or of a run directory.

    A baseline has the constants that were tuned for the scenario, where there are some.

    Loading a run unpickles the model that stable-baselines3 saved, which can run any code that
    its author put there: load only runs that you trust. An exported allocator cannot run any.

    Raises:
        ValueError: no such policy, an incomplete run, or a file that holds no allocator.
        AgentsError: an allocator that was trained for other agents.
        OSError: the file cannot be read.
    """
    if name in POLICIES:
        return policy_for(name, scenario.name)
    if name.endswith(EXPORTED) and not Path(name).is_dir():
        allocator = Allocator.load(name)
        _check_agents(name, len(allocator.manifest.agents), scenario)
        return allocator.decide
    directory = Path(name)
    if not directory.is_dir():
        raise ValueError(
            f"unknown policy {name!r}; give one of {', '.join(POLICIES)}, an exported allocator "
            f"({' or '.join(EXPORTED)}), or the directory of a training run"
        )
    for file in (MODEL, TRANSFORM):
        if not (directory / file).is_file():
            raise ValueError(f"{directory} holds no finished training run: {file} is missing; train it first")
    from stable_baselines3 import PPO

    transform = SimplexActions(**json.loads((directory / TRANSFORM).read_text(encoding="utf-8")))
    _check_agents(name, transform.num_agents, scenario)
    _LOG.warning(
        "%s: loading a training run can run any code that its author put there; prefer the file that "
        "`python -m training.export %s --out allocator.npz` writes, which cannot",
        name,
        name,
    )
    return learned_policy(PPO.load(directory / MODEL, device="cpu"), transform)


def _check_agents(name: str, trained: int, scenario: Scenario) -> None:
    if trained != len(scenario.agents):
        raise AgentsError(
            f"{name} was trained for {trained} agents, scenario {scenario.name!r} has "
            f"{len(scenario.agents)}; train one for it"
        )


def load_policies(name: str, scenario: Scenario) -> list[Policy]:
    """The policy of a name or directory, or of every `seed-*` run in a directory that holds several.

    Raises as `load_policy` does.
    """
    runs = sorted(Path(name).glob("seed-*/")) if name not in POLICIES else []
    return [load_policy(str(run), scenario) for run in runs] or [load_policy(name, scenario)]


def learned_policy(model: Any, transform: Callable[[AnyArray], AnyArray]) -> Policy:
    """The policy of a stable-baselines3 model: its most likely action, as in training made shares."""

    def policy(view: View) -> Array:
        observation = observe(view)
        batched = observation.reshape(-1, *observation.shape[-2:])
        logits = cast(AnyArray, model.predict(batched, deterministic=True)[0])
        return np.reshape(transform(logits), view.queue.shape)

    return policy

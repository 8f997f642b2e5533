"""A run between two updates, as one file: all that the rest of it depends on."""

import io
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

from training.files.atomic import write_atomically
from training.files.run_directory import archive_problem
from training.learning.environments.domain_randomisation import DomainVecEnv
from training.learning.selection import Selection

LEARNER = (
    "num_timesteps",
    "_n_updates",
    "_episode_num",
    "_current_progress_remaining",
    "_last_obs",
    "_last_original_obs",
    "_last_episode_starts",
    "ep_info_buffer",
    "ep_success_buffer",
)
NORMALISER = ("ret_rms", "returns", "old_reward", "old_obs")
# Recorded by the last update, written with the next one's.
LOGGER = ("name_to_value", "name_to_count", "name_to_excluded")


def save(path: Path, model: PPO, selection: Selection, written: dict[str, int]) -> None:
    """Replace the checkpoint by one of this moment.

    Args:
        path: of the file.
        model: the learner, between two updates.
        selection: its validation so far.
        written: length of each event file.
    """
    normaliser, env = environments(model)
    contents = {
        "policy": model.policy.state_dict(),
        "optimiser": model.policy.optimizer.state_dict(),
        "learner": {name: getattr(model, name) for name in LEARNER},
        "logger": {name: dict(getattr(model.logger, name)) for name in LOGGER},
        "normaliser": {name: getattr(normaliser, name) for name in NORMALISER},
        "environments": env.snapshot(),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),  # noqa: NPY002 (what stable-baselines3 draws from)
        "selection": selection,
        "written": written,
    }
    file = io.BytesIO()
    torch.save(contents, file)
    write_atomically(path, file.getvalue())


def load(path: Path) -> dict[str, Any] | None:
    """The contents of a run's last checkpoint, None where it has none yet.

    Unpickles the file, which can run any code that its author put there: continue only runs that
    you trust.

    Raises:
        ValueError: it is damaged.
    """
    check_whole(path)
    return torch.load(path, map_location="cpu", weights_only=False) if path.exists() else None


def check_whole(path: Path) -> None:
    """Refuse a checkpoint that is there and damaged.

    Raises:
        ValueError: it is.
    """
    if path.exists() and (problem := archive_problem(path)):
        raise ValueError(f"{path} is damaged ({problem}); delete it, and the run begins anew")


def restore(model: PPO, contents: dict[str, Any]) -> None:
    """Put a fresh learner, its logger set, where the saved one was; to be called last before it learns.

    Raises:
        ValueError: the scenario's file has changed since, or another version of this package began the run.
    """
    normaliser, env = environments(model)
    env.restore(contents["environments"])
    try:
        model.policy.load_state_dict(contents["policy"])
    except RuntimeError:
        raise ValueError(
            "another version of this package began this run, with other layers; continue it with that "
            "version, or begin again with another --out"
        ) from None
    model.policy.optimizer.load_state_dict(contents["optimiser"])
    for target, part in ((model, "learner"), (normaliser, "normaliser")):
        for name, value in contents[part].items():
            setattr(target, name, value)
    for name, values in contents["logger"].items():
        getattr(model.logger, name).update(values)
    torch.set_rng_state(contents["torch"])
    np.random.set_state(contents["numpy"])  # noqa: NPY002


def environments(model: PPO) -> tuple[VecNormalize, DomainVecEnv]:
    """The normaliser of rewards, and the environments within it."""
    normaliser = cast(VecNormalize, model.get_env())
    return normaliser, cast(DomainVecEnv, normaliser.venv)

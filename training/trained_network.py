"""The network of a training run as plain arrays, for a file that needs neither torch nor pickle."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize

from gpualloc_env.state import AnyArray
from training.action_transform import SimplexActions

Arrays = dict[str, AnyArray]


def mlp(
    model: PPO, transform: SimplexActions, normaliser: VecNormalize | None
) -> tuple[dict[str, Any], Arrays]:
    """Settings and arrays of `gpualloc_env.networks.mlp` for a model of stable-baselines3.

    Args:
        model: a multilayer perceptron with tanh units over the flat observation.
        transform: from its actions to shares.
        normaliser: of its observations; None where it sees them as they are.

    Raises:
        ValueError: the policy is of another kind.
    """
    policy: Any = model.policy
    body = list(policy.mlp_extractor.policy_net)
    linear = [*body[::2], policy.action_net]
    if (
        not isinstance(policy.features_extractor, FlattenExtractor)
        or not all(isinstance(layer, torch.nn.Linear) for layer in linear)
        or not all(isinstance(unit, torch.nn.Tanh) for unit in body[1::2])
        or len(body) % 2
        or policy.squash_output
    ):
        raise ValueError(
            "only a multilayer perceptron with tanh units over the whole observation can be exported"
        )
    arrays = _normalisation(normaliser, linear[0].in_features)
    for k, layer in enumerate(linear):
        arrays[f"weight_{k}"] = np.ascontiguousarray(layer.weight.detach().numpy().T)
        arrays[f"bias_{k}"] = layer.bias.detach().numpy()
    settings = {
        "kind": "mlp",
        "activation": "tanh",
        "layers": [linear[0].in_features, *(layer.out_features for layer in linear)],
        "clip": None if normaliser is None else float(normaliser.clip_obs),
        "bound": transform.bound,
        "idle_bias": transform.idle_bias,
    }
    return settings, arrays


def load_normaliser(path: Path) -> VecNormalize | None:
    """The normaliser of a run where it normalised observations; that of rewards is for training alone."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        normaliser = pickle.load(file)
    return normaliser if normaliser.norm_obs else None


def _normalisation(normaliser: VecNormalize | None, inputs: int) -> Arrays:
    if normaliser is None:
        mean, scale = np.zeros(inputs), np.ones(inputs)
    else:
        moments: Any = normaliser.obs_rms
        mean, scale = moments.mean.ravel(), 1.0 / np.sqrt(moments.var.ravel() + normaliser.epsilon)
    nearest = mean.astype(np.float32)
    rest = (mean - nearest).astype(np.float32)
    return {"mean": nearest, "mean_rest": rest, "scale": scale.astype(np.float32)}

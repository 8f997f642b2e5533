"""The network of a training run as plain arrays, for a file that needs neither torch nor pickle."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

from baselines import Policy
from gpualloc_env.allocator.networks import Decider, decider
from gpualloc_env.simulation.observation import View, observed, pack
from gpualloc_env.simulation.state import AnyArray, Array
from training.learning.action_transform import ActionTransform
from training.learning.allocator_policy import AllocatorPolicy, Equivariant, SharedHead

Arrays = dict[str, AnyArray]


def network_of(
    model: PPO, transform: ActionTransform, normaliser: VecNormalize | None = None
) -> tuple[dict[str, Any], Arrays]:
    """Settings and arrays of `gpualloc_env.networks.decider` for a model of stable-baselines3.

    Args:
        model: what PPO has trained.
        transform: from its actions to shares.
        normaliser: of its observations; None where it sees them as they are.

    Raises:
        ValueError: the policy is of another kind.
    """
    policy = model.policy
    if not isinstance(policy, AllocatorPolicy):
        raise ValueError(f"only an allocator's policy can be exported, got {type(policy).__name__}")
    make = _mlp if policy.network == "mlp" else _shared
    settings, arrays = make(policy, normaliser)
    return settings | {"actions": transform.settings}, arrays


def decider_of(model: PPO, transform: ActionTransform) -> Decider:
    """What decides as a file that is exported from the model would."""
    settings, arrays = network_of(model, transform)
    return decider(settings, arrays, transform.num_agents)


def learned_policy(decider: Decider) -> Policy:
    """The policy of a network: its most likely action, as in training made shares."""

    def policy(view: View) -> Array:
        packed = pack(view)
        return decider(observed(packed), packed).reshape(view.queue.shape)

    return policy


def _mlp(policy: AllocatorPolicy, normaliser: VecNormalize | None) -> tuple[dict[str, Any], Arrays]:
    linear: list[Any] = [*policy.mlp_extractor.actor.linear, policy.action_net]
    arrays = _normalisation(normaliser, linear[0].in_features)
    for k, layer in enumerate(linear):
        arrays |= _affine(layer, str(k))
    layers = [linear[0].in_features, *(layer.out_features for layer in linear)]
    clip = None if normaliser is None else float(normaliser.clip_obs)
    return {"kind": "mlp", "activation": "tanh", "layers": layers, "clip": clip}, arrays


def _shared(policy: AllocatorPolicy, normaliser: VecNormalize | None) -> tuple[dict[str, Any], Arrays]:
    if normaliser is not None:
        raise ValueError("a shared network sees its observations as they are; train without a normaliser")
    body, head = policy.mlp_extractor.actor, policy.action_net
    assert isinstance(body, Equivariant) and isinstance(head, SharedHead)
    linear: list[Any] = [*body.own, head.own]
    arrays: Arrays = {}
    for k, layer in enumerate(linear):
        arrays |= _affine(layer, str(k))
    for name, layers in (("mean", body.mean), ("max", body.max)):
        for k, layer in enumerate(layers, start=1):
            arrays[f"{name}_{k}"] = _array(layer.weight.T)
    if head.idle is not None:
        arrays |= _affine(head.idle, "idle")
    layers = [linear[0].in_features, *(layer.out_features for layer in linear)]
    return {"kind": "shared", "activation": "tanh", "layers": layers, "idle": head.idle is not None}, arrays


def _affine(layer: Any, name: str) -> Arrays:
    return {f"weight_{name}": _array(layer.weight.T), f"bias_{name}": _array(layer.bias)}


def _array(tensor: Any) -> AnyArray:
    return np.ascontiguousarray(tensor.detach().numpy())


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

"""The network of a training run as plain arrays, for a file that needs neither torch nor pickle."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3 import PPO

from baselines import Policy
from gpualloc_env.allocator.cluster import CLUSTER_COLUMNS, ClusterDecider
from gpualloc_env.allocator.decider import Decider
from gpualloc_env.allocator.networks import LOG_ODDS
from gpualloc_env.allocator.receding_horizon import Assumed
from gpualloc_env.simulation.observation import View, observed, pack
from gpualloc_env.simulation.state import AnyArray, Array
from training.files.run_directory import MODEL, archive_problem, damaged
from training.learning.allocators.action_transform import ActionTransform, Transform
from training.learning.allocators.allocator_policy import (
    AllocatorPolicy,
    Equivariant,
    Exchangeable,
    SharedHead,
)

Arrays = dict[str, AnyArray]


class Network(NamedTuple):
    """How a network of `AllocatorPolicy` leaves training."""

    arrays: Callable[[AllocatorPolicy], tuple[dict[str, Any], Arrays]]
    """Its settings and arrays, as `gpualloc_env.allocator.decider.Decider` takes them."""
    serves_any_number: bool
    """Whether it decides for other numbers of agents than it was trained for."""
    precision: torch.dtype
    """In which an exported file adds up; the trained model is compared with it in the same."""


def load_model(run: Path) -> PPO:
    """The model of a finished run, which is unpickled: give only runs that you trust.

    Raises:
        ValueError: its file is damaged, or another version of this package trained it.
    """
    file = run / MODEL
    if problem := archive_problem(file):
        raise damaged(file, problem)
    try:
        return PPO.load(file, device="cpu")
    except AssertionError as error:
        raise damaged(file, error) from None
    except (ModuleNotFoundError, AttributeError, RuntimeError) as error:
        reason, *_ = str(error).split("\n")
        raise ValueError(
            f"{run} was trained by another version of this package ({reason}); export it with that version, "
            "or train it again"
        ) from None


def network_of(model: PPO, transform: Transform) -> tuple[dict[str, Any], Arrays]:
    """Settings and arrays of `gpualloc_env.allocator.decider.Decider` for a model of stable-baselines3.

    Args:
        model: what PPO has trained.
        transform: from its actions to shares.

    Raises:
        ValueError: the policy is of another kind.
    """
    policy = model.policy
    if not isinstance(policy, AllocatorPolicy):
        raise ValueError(f"only an allocator's policy can be exported, got {type(policy).__name__}")
    settings, arrays = NETWORKS[policy.network].arrays(policy)
    return settings | {"actions": transform.settings}, arrays


def decider_of(model: PPO, transform: ActionTransform) -> Decider:
    """What decides as a file that is exported from the model would."""
    settings, arrays = network_of(model, transform)
    return Decider(settings, arrays, transform.num_agents)


def policy_of(model: PPO, transform: Transform) -> Policy:
    """The same as a policy, of a pool of GPUs or of a cluster."""
    if isinstance(transform, ActionTransform):
        return LearnedPolicy(decider_of(model, transform))
    return ClusterDecider(*network_of(model, transform), CLUSTER_COLUMNS)


@dataclass(frozen=True)
class LearnedPolicy:
    """The policy of a network: its most likely action, as in training made shares."""

    decider: Decider

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`."""
        packed = pack(view)
        return self.decider(observed(packed), packed).reshape(view.queue.shape)

    def assumed(self, view: View) -> Assumed | None:
        """What receding-horizon control assumes in deciding; None where it does not decide."""
        return self.decider.assumed(observed(pack(view)))


@dataclass(frozen=True)
class SideBySide:
    """Several networks of one kind, of which each decides in an equal part of a batch, in their order."""

    deciders: Sequence[Decider]

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`."""
        packed = pack(view)
        observation = observed(packed)
        parts = zip(self.deciders, np.split(observation, len(self.deciders)), strict=True)
        outputs = np.concatenate([decider.outputs(part) for decider, part in parts])
        return self.deciders[0].act(observation, outputs, packed)


def _mlp(policy: AllocatorPolicy) -> tuple[dict[str, Any], Arrays]:
    linear: list[Any] = [*policy.mlp_extractor.actor.own, policy.action_net]
    inputs = linear[0].in_features
    # The format has room for a normalisation of the inputs; the observation needs none.
    arrays: Arrays = {name: np.zeros(inputs, np.float32) for name in ("mean", "mean_rest")}
    arrays["scale"] = np.ones(inputs, np.float32)
    for k, layer in enumerate(linear):
        arrays |= _affine(layer, str(k))
    layers = [inputs, *(layer.out_features for layer in linear)]
    return {"kind": "mlp", "activation": "tanh", "layers": layers, "clip": None}, arrays


def _shared(policy: AllocatorPolicy) -> tuple[dict[str, Any], Arrays]:
    body, head = policy.mlp_extractor.actor, policy.action_net
    assert isinstance(body, Equivariant) and isinstance(head, SharedHead)
    settings, arrays = _by_rows(body.own, head.own, {"mean": body.mean, "max": body.max})
    if head.idle is not None:
        arrays |= _affine(head.idle, "idle")
    return {"kind": "shared", "idle": head.idle is not None, "log_odds": list(LOG_ODDS), **settings}, arrays


def _exchangeable(policy: AllocatorPolicy) -> tuple[dict[str, Any], Arrays]:
    body, head = policy.mlp_extractor.actor, policy.action_net
    assert isinstance(body, Exchangeable) and isinstance(head, SharedHead)
    settings, arrays = _by_rows(body.own, head.own, {"agent": body.agent, "gpu": body.gpu})
    return {"kind": "exchangeable", **settings}, arrays


def _by_rows(own: Iterable[Any], head: Any, contexts: dict[str, Any]) -> tuple[dict[str, Any], Arrays]:
    """Of a network that is applied to every row: its own layers, and by name those of what it sees around."""
    linear, arrays = [*own, head], dict[str, AnyArray]()
    for k, layer in enumerate(linear):
        arrays |= _affine(layer, str(k))
    for name, layers in contexts.items():
        for k, layer in enumerate(layers, start=1):
            arrays[f"{name}_{k}"] = _array(layer.weight.T)
    layers = [linear[0].in_features, *(layer.out_features for layer in linear)]
    return {"activation": "tanh", "layers": layers}, arrays


def _affine(layer: Any, name: str) -> Arrays:
    return {f"weight_{name}": _array(layer.weight.T), f"bias_{name}": _array(layer.bias)}


def _array(tensor: Any) -> AnyArray:
    # A copy: the model goes on learning.
    return np.array(tensor.detach().numpy(), order="C")


NETWORKS: dict[str, Network] = {
    "mlp": Network(_mlp, serves_any_number=False, precision=torch.float32),
    "shared": Network(_shared, serves_any_number=True, precision=torch.float64),
    "exchangeable": Network(_exchangeable, serves_any_number=True, precision=torch.float64),
}
"""By the name of the network of an `AllocatorPolicy`."""

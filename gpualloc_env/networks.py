"""Networks of exported allocators: one function for each kind, from plain arrays to shares."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from gpualloc_env.compiled import compiled
from gpualloc_env.state import AnyArray, Array

Network = Callable[[AnyArray], Array]
"""From observations, (B, N, F) float32, to fractions of the platform, (B, N)."""


def mlp(settings: Mapping[str, Any], arrays: Mapping[str, AnyArray], shape: tuple[int, int]) -> Network:
    """A multilayer perceptron over the whole observation, whose outputs become shares on a simplex.

    x = clip((observation − mean − mean_rest) · scale, ±clip), then tanh layers and a linear one, whose N + 1
    outputs are clipped to ±bound; the softmax of them, `idle_bias` added to the last, which stands
    for idle capacity, are the shares.

    Args:
        settings: `layers` (widths, the first N·F, the last N + 1), `clip` (None where nothing is
            clipped), `bound` and `idle_bias`.
        arrays: `mean`, what float32 leaves of it (`mean_rest`, which counts where a feature hardly
            varies) and `scale`, (N·F,), and of layer k `weight_k`, (inputs, outputs), and `bias_k`.
        shape: (N, F).

    Raises:
        ValueError: the layers do not fit the agents, or the arrays do not fit the layers.
    """
    agents, features = shape
    layers = tuple(int(width) for width in settings["layers"])
    if len(layers) < 2 or min(layers) < 1 or layers[0] != agents * features or layers[-1] != agents + 1:
        raise ValueError(
            f"layers {layers} must lead from {agents} × {features} features to {agents + 1} outputs"
        )
    if settings.get("activation") != "tanh":
        raise ValueError(f"activation must be 'tanh', got {settings.get('activation')!r}")
    expected: dict[str, tuple[int, ...]] = dict.fromkeys(("mean", "mean_rest", "scale"), layers[:1])
    for k, (inputs, outputs) in enumerate(pairwise(layers)):
        expected |= {f"bias_{k}": (outputs,), f"weight_{k}": (inputs, outputs)}
    if set(arrays) != set(expected):
        raise ValueError(f"the arrays must be {', '.join(expected)}, got {', '.join(arrays)}")
    for name, wanted in expected.items():
        if arrays[name].dtype != np.float32 or arrays[name].shape != wanted:
            raise ValueError(
                f"{name} must be float32 of shape {wanted}, "
                f"got {arrays[name].dtype} of shape {arrays[name].shape}"
            )
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} is not finite")
    # One array in the order of reading: a compiled call costs more for each array that it is given.
    weights = np.concatenate([arrays[name].ravel() for name in expected])
    widths = np.array(layers)
    clip = math.inf if settings["clip"] is None else float(settings["clip"])
    bound, idle_bias = float(settings["bound"]), float(settings["idle_bias"])
    if not (clip > 0 and bound > 0 and math.isfinite(bound) and math.isfinite(idle_bias)):
        raise ValueError("clip and bound must be above 0, bound and idle_bias finite")
    widest = max(layers)

    def network(observation: AnyArray) -> Array:
        shares = np.empty(observation.shape[:2])
        # Made anew at each call, so that threads can share an allocator.
        scratch = np.empty((2, widest), dtype=np.float32)
        inputs = observation.reshape(len(observation), layers[0])
        _mlp(inputs, widths, weights, clip, bound, idle_bias, scratch, shares)
        return shares

    return network


@compiled
def _mlp(
    observation: AnyArray,
    widths: AnyArray,
    weights: AnyArray,
    clip: float,
    bound: float,
    idle_bias: float,
    scratch: AnyArray,
    shares: AnyArray,
) -> None:
    """Write the shares, (B, N), of flat observations, (B, N·F)."""
    features, last = widths[0], len(widths) - 2
    for b in range(observation.shape[0]):
        values, results, row = scratch[0], scratch[1], observation[b]
        mean, rest = weights[:features], weights[features : 2 * features]
        scale = weights[2 * features : 3 * features]
        for i in range(features):
            values[i] = max(-clip, min(clip, ((row[i] - mean[i]) - rest[i]) * scale[i]))
        start = 3 * features
        for k in range(last + 1):
            inputs, outputs = widths[k], widths[k + 1]
            layer = weights[start : start + outputs]
            for j in range(outputs):
                results[j] = layer[j]
            start += outputs
            for i in range(inputs):
                value, layer = values[i], weights[start : start + outputs]
                # Along the outputs, so that the sums need not be reordered to run side by side.
                for j in range(outputs):
                    results[j] += value * layer[j]
                start += outputs
            if k < last:
                for j in range(outputs):
                    results[j] = math.tanh(results[j])
            values, results = results, values
        _simplex(values, bound, idle_bias, shares[b])


@compiled
def _simplex(logits: AnyArray, bound: float, idle_bias: float, shares: AnyArray) -> None:
    """Write the softmax of N + 1 logits but for the last one, (N,)."""
    count = shares.shape[0]
    idle = max(-bound, min(bound, logits[count])) + idle_bias
    highest = idle
    for i in range(count):
        shares[i] = max(-bound, min(bound, logits[i]))
        highest = max(highest, shares[i])
    total = math.exp(idle - highest)
    for i in range(count):
        shares[i] = math.exp(shares[i] - highest)
        total += shares[i]
    for i in range(count):
        shares[i] /= total


KINDS: dict[str, Callable[[Mapping[str, Any], Mapping[str, AnyArray], tuple[int, int]], Network]] = {
    "mlp": mlp,
}
"""From `kind`, its settings in the manifest, its arrays and (N, F) to the network."""

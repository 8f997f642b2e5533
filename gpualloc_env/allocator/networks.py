"""Networks of exported allocators from plain arrays."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gpualloc_env.allocator.weights import accumulate, joined, number, tanh, widths_of, within
from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.state import AnyArray

Network = Callable[[AnyArray], AnyArray]
"""From observations, (B, N, F) float32, to the outputs for each, (B, A)."""

LOG_ODDS = (
    "queue",
    "inflow",
    "rate",
    "share",
    "loading",
    "oldest_age",
    "throughput",
    "kappa",
    "waiting",
    "prefill",
)
"""Columns that a newly trained `shared` network reads as log odds too: of x = y / (1 + y), log y.

A queue of 20 s and one of 40 s are then as far apart as one of 1 s and one of 2 s, and products of powers,
such as a share in proportion to √y, are linear.
"""
LOG_ODDS_SCALE = 1 / 3
LOG_ODDS_LEAST = 1e-3  # x and 1 − x count as no less


def mlp(
    settings: Mapping[str, Any], arrays: Mapping[str, AnyArray], agents: int, columns: Sequence[str]
) -> Network:
    """A multilayer perceptron over the whole observation.

    x = clip((observation − mean − mean_rest) · scale, ±clip), then tanh layers and a linear one.

    Args:
        settings: `layers` (widths, the first N·F) and `clip` (None where nothing is clipped).
        arrays: `mean`, what float32 leaves of it (`mean_rest`, which counts where a feature hardly
            varies) and `scale`, (N·F,), and of layer k `weight_k`, (inputs, outputs), and `bias_k`.
        agents: N.
        columns: names of the F columns that it reads, in order.

    Raises:
        ValueError: the layers do not fit the agents, or the arrays do not fit the layers.
    """
    features = len(columns)
    layers = widths_of(settings, agents * features, f"{agents} × {features} features")
    expected: dict[str, tuple[int, ...]] = dict.fromkeys(("mean", "mean_rest", "scale"), layers[:1])
    for k, (inputs, outputs) in enumerate(pairwise(layers)):
        expected |= {f"bias_{k}": (outputs,), f"weight_{k}": (inputs, outputs)}
    # One array in the order of reading: a compiled call costs more for each array that it is given.
    weights = joined(arrays, expected)
    widths, widest = np.array(layers), max(layers)
    clip = math.inf if settings["clip"] is None else number(settings, "clip")
    if not clip > 0:
        raise ValueError("clip must be above 0")

    def network(observation: AnyArray) -> AnyArray:
        outputs = np.empty((len(observation), layers[-1]), dtype=np.float32)
        # Made anew at each call, so that threads can share an allocator.
        scratch = np.empty((2, widest), dtype=np.float32)
        _mlp(observation.reshape(len(observation), layers[0]), widths, weights, clip, scratch, outputs)
        return outputs

    return network


def shared(
    settings: Mapping[str, Any], arrays: Mapping[str, AnyArray], agents: int, columns: Sequence[str]
) -> Network:
    """One network applied to every agent, in the context of all: equivariant to the order of agents.

    Of the row x of agent i, its share in GPUs, h_0 = tanh(x W_0 + b_0). A column x = y / (1 + y) of
    `log_odds` is read once more as log y, within ±log 1000: see `LOG_ODDS`. Each further layer is
    h_k = tanh(h_(k−1) W_k + mean_j(h_(k−1)) M_k + max_j(h_(k−1)) X_k + b_k), means and maxima over the
    agents. The last one is linear in h alone and writes the outputs of agent i; where `idle` is
    set, a last output is linear in the mean of h. Nothing depends on the number of agents, so any
    number is served (Zaheer et al., "Deep Sets", NeurIPS 2017). In float64, because a plan can
    jump where its corrections differ by rounding.

    Args:
        settings: `layers` (widths, the first that of the columns and of the `log_odds`, the last the
            outputs of one agent), `idle`, and `log_odds`, names of columns; none where it is absent.
        arrays: of layer k `weight_k`, (inputs, outputs), `bias_k`, and but for the first and the
            last `mean_k` and `max_k`, (inputs, outputs); with `idle` `weight_idle` and `bias_idle`.
        agents: N; the network serves any number.
        columns: names of the F columns that it reads, in order, `share` and `gpus` among them.

    Raises:
        ValueError: the layers do not fit the features, or the arrays do not fit the layers.
    """
    absent = [name for name in ("share", "gpus") if name not in columns]
    if absent:
        raise ValueError(
            f"a shared network reads the columns share and gpus, and {absent[0]} is not among its"
        )
    share, gpus = columns.index("share"), columns.index("gpus")
    twice = list(settings.get("log_odds", ()))
    unknown = [name for name in twice if name not in columns]
    if unknown:
        raise ValueError(f"log_odds names {unknown[0]!r:.60}, which is not among the columns that it reads")
    odds = np.array([columns.index(name) for name in twice], dtype=np.intp)
    features = f"{len(columns)} features" + (f" and {len(odds)} log odds" if twice else "")
    layers = widths_of(settings, len(columns) + len(odds), features)
    expected: dict[str, tuple[int, ...]] = {}
    last = len(layers) - 2
    for k, (inputs, outputs) in enumerate(pairwise(layers)):
        expected |= {f"bias_{k}": (outputs,), f"weight_{k}": (inputs, outputs)}
        if 0 < k < last:
            expected |= {f"mean_{k}": (inputs, outputs), f"max_{k}": (inputs, outputs)}
    idle = bool(settings["idle"])
    if idle:
        expected |= {"bias_idle": (1,), "weight_idle": (layers[-2], 1)}
    weights = joined(arrays, expected).astype(np.float64)
    widths, widest = np.array(layers), max(layers)

    def network(observation: AnyArray) -> AnyArray:
        count = observation.shape[1]
        outputs = np.empty((len(observation), count * layers[-1] + idle))
        scratch = np.empty((2 * count + 3, widest))
        _shared(observation, (gpus, share), odds, widths, weights, scratch, outputs)
        return outputs

    return network


@compiled
def _mlp(
    observation: AnyArray,
    widths: AnyArray,
    weights: AnyArray,
    clip: float,
    scratch: AnyArray,
    outputs: AnyArray,
) -> None:
    """Write the outputs, (B, A), of flat observations, (B, N·F)."""
    features, last = widths[0], len(widths) - 2
    for b in range(observation.shape[0]):
        values, results, row = scratch[0], scratch[1], observation[b]
        mean, rest = weights[:features], weights[features : 2 * features]
        scale = weights[2 * features : 3 * features]
        for i in range(features):
            values[i] = within(((row[i] - mean[i]) - rest[i]) * scale[i], clip)
        start = 3 * features
        for k in range(last + 1):
            inputs, width = widths[k], widths[k + 1]
            for j in range(width):
                results[j] = weights[start + j]
            start += width
            accumulate(values, inputs, weights[start:], results, width)
            start += inputs * width
            if k < last:
                tanh(results[:width])
            values, results = results, values
        for j in range(outputs.shape[1]):
            outputs[b, j] = values[j]


@inlined
def _add_log_odds(row: AnyArray, odds: AnyArray, features: int) -> None:
    """Write the log odds of some columns behind the features of a row."""
    for j in range(odds.shape[0]):
        value = min(row[odds[j]], 1.0)
        ratio = (value + LOG_ODDS_LEAST) / (1.0 + LOG_ODDS_LEAST - value)
        row[features + j] = LOG_ODDS_SCALE * math.log(ratio)


@compiled
def _shared(
    observation: AnyArray,
    places: tuple[int, int],
    odds: AnyArray,
    widths: AnyArray,
    weights: AnyArray,
    scratch: AnyArray,
    outputs: AnyArray,
) -> None:
    """Write the outputs, (B, A), of observations, (B, N, F).

    `places` are the columns `gpus` and `share`, `odds` those of the log odds; `scratch` is
    (2 N + 3, widest layer).
    """
    count, features, last = observation.shape[1], observation.shape[2], len(widths) - 2
    gpus, share = places
    common, mean, most = scratch[2 * count], scratch[2 * count + 1], scratch[2 * count + 2]
    for b in range(observation.shape[0]):
        values, results = scratch[:count], scratch[count : 2 * count]
        for i in range(count):
            for j in range(features):
                values[i, j] = observation[b, i, j]
            values[i, share] *= values[i, gpus] / max(1.0 - values[i, gpus], 1e-6)
            _add_log_odds(values[i], odds, features)
        start = 0
        for k in range(last + 1):
            inputs, width = widths[k], widths[k + 1]
            for j in range(width):
                common[j] = weights[start + j]
            start += width
            own = start
            start += inputs * width
            if 0 < k < last:
                accumulate(mean, inputs, weights[start:], common, width)
                start += inputs * width
                accumulate(most, inputs, weights[start:], common, width)
                start += inputs * width
            for i in range(count):
                for j in range(width):
                    results[i, j] = common[j]
                accumulate(values[i], inputs, weights[own:], results[i], width)
                if k < last:
                    tanh(results[i, :width])
            if k < last:
                for j in range(width):
                    total, highest = 0.0, results[0, j]
                    for i in range(count):
                        total += results[i, j]
                        highest = max(highest, results[i, j])
                    mean[j], most[j] = total / count, highest
            values, results = results, values
        width = widths[last + 1]
        for i in range(count):
            for j in range(width):
                outputs[b, i * width + j] = values[i, j]
        if outputs.shape[1] > count * width:
            total = weights[start]
            for j in range(widths[last]):
                total += mean[j] * weights[start + 1 + j]
            outputs[b, count * width] = total


Maker = Callable[[Mapping[str, Any], Mapping[str, AnyArray], int, Sequence[str]], Network]
KINDS: dict[str, Maker] = {"mlp": mlp, "shared": shared}
"""From `kind`, its settings in the manifest, its arrays, N and the columns that it reads to the network."""

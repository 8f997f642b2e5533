"""Exported allocators from plain arrays: a network's outputs, and what makes shares of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gpualloc_env.allocator.receding_horizon import (
    CORRECTIONS,
    NOT_BATCHED,
    Constants,
    plan_observed,
    plan_packed,
)
from gpualloc_env.allocator.weights import accumulate, joined, number, tanh, widths_of, within
from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.observation import OBSERVATION_FEATURES, Packed, unbounded
from gpualloc_env.simulation.state import AnyArray, Array

_SHARE, _GPUS, _DEADBAND = (OBSERVATION_FEATURES.index(name) for name in ("share", "gpus", "deadband"))
RESOLUTION = 1e-6  # [GPU]

Network = Callable[[AnyArray], AnyArray]
"""From observations, (B, N, F) float32, to the outputs for each, (B, A)."""

Actions = Callable[[AnyArray, AnyArray, Packed | None], Array]
"""From observations, (B, N, F), outputs, (B, A), and the view behind the observations, where it is
known, to fractions of the platform, (B, N). The outputs are overwritten."""


def simplex_outputs(agents: int) -> int:
    """A of `simplex`: one for each agent and one for idle capacity."""
    return agents + 1


def hysteresis_outputs(agents: int) -> int:
    """A of `hysteresis`: two for each agent, agent by agent, and one for idle capacity."""
    return 2 * agents + 1


def correction_outputs(agents: int) -> int:
    """A of `corrections`: for each agent one of each kind, agent by agent."""
    return agents * len(CORRECTIONS)


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


def simplex(settings: Mapping[str, Any]) -> Actions:
    """Shares as a softmax over N + 1 outputs, clipped to ±bound, the last of which is for idle capacity.

    `idle_bias` + log N is added to the last: it is weighed against all agents together.

    Args:
        settings: `bound` and `idle_bias`.
    """
    bound, idle_bias = number(settings, "bound"), number(settings, "idle_bias")
    if not (bound > 0 and math.isfinite(bound) and math.isfinite(idle_bias)):
        raise ValueError("bound must be above 0, bound and idle_bias finite")

    def shares(observation: AnyArray, outputs: AnyArray, packed: Packed | None) -> Array:
        count = observation.shape[1]
        result = np.empty((len(observation), count))
        _simplex(outputs, bound, idle_bias + math.log(count), result)
        return result

    return shares


def hysteresis(settings: Mapping[str, Any]) -> Actions:
    """Shares that follow those of `simplex` with hysteresis: small changes are made only where they are free.

    Agent i has two outputs: its logit, and the logit of a threshold, `widest` · σ(output + `threshold_bias`)
    [GPU]. Where its share on the simplex differs from the one that it holds by more than the threshold, it
    moves there. Elsewhere it drifts towards it by no more than the platform's deadband, which costs no
    reallocation. What drifts upwards has precedence over what moves: those that move are scaled to what is
    left, and what drifts upwards to what the other drifting agents leave.

    Args:
        settings: `bound` and `idle_bias` as for `simplex`, `widest` and `threshold_bias`.
    """
    names = ("bound", "idle_bias", "widest", "threshold_bias")
    bound, idle_bias, widest, bias = (number(settings, name) for name in names)
    if not (bound > 0 and widest > 0 and all(map(math.isfinite, (bound, idle_bias, widest, bias)))):
        raise ValueError("bound and widest must be above 0, and all of them and the biases finite")

    def shares(observation: AnyArray, outputs: AnyArray, packed: Packed | None) -> Array:
        count = observation.shape[1]
        result = np.empty((len(observation), count))
        logits = np.ascontiguousarray(outputs[:, [*range(0, 2 * count, 2), 2 * count]])
        _simplex(logits, bound, idle_bias + math.log(count), result)
        if packed is None:
            first = observation[:, 0].astype(np.float64)
            held, gpus = observation[..., _SHARE].astype(np.float64), unbounded(first[:, _GPUS])
            deadband = first[:, _DEADBAND]
        else:
            own = packed.settings[0]
            held = packed.state["share"] / own["gpus"]
            gpus, deadband = (np.full(len(held), own[name]) for name in ("gpus", "deadband"))
        thresholds = np.clip(outputs[:, 1 : 2 * count : 2], -bound, bound) + bias
        gpus = np.maximum(gpus, RESOLUTION)
        thresholds = widest / (1.0 + np.exp(-thresholds)) / gpus[:, None]
        # Less by what float32 leaves of a share.
        free = np.maximum(deadband - RESOLUTION, 0.0) / gpus
        _follow(held, thresholds, free, result)
        return result

    return shares


def corrections(settings: Mapping[str, Any]) -> Actions:
    """Shares as receding-horizon control plans them after bounded corrections of what it assumes.

    The outputs, clipped to ±bound, are the logarithms of `CORRECTIONS`, agent by agent. Outputs of zero
    make the shares those of the controller itself.

    Args:
        settings: `bound`, and `base`, the controller's `Constants` by name, and where it plans for servers
            of calls `full_batch` and `decoding`.
    """
    bound, base = number(settings, "bound"), settings["base"]
    constants = np.array([number(base, name) for name in Constants._fields])
    full, decoding = (number(base, name) if name in base else 0.0 for name in ("full_batch", "decoding"))
    batching = (full, decoding) if full > 0 else NOT_BATCHED
    if not (bound > 0 and math.isfinite(bound) and np.isfinite([*constants, *batching]).all()):
        raise ValueError("bound must be above 0, bound and the constants of base finite")

    def shares(observation: AnyArray, outputs: AnyArray, packed: Packed | None) -> Array:
        _clip(outputs, bound)
        logarithms = outputs.reshape(-1, observation.shape[1], len(CORRECTIONS))
        if packed is None:
            return plan_observed(observation, constants, logarithms, batching)
        return plan_packed(packed, constants, logarithms, batching)

    return shares


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


@compiled
def _clip(outputs: AnyArray, bound: float) -> None:
    """Hold outputs, (B, A), to ±bound, in place."""
    for b in range(outputs.shape[0]):
        for k in range(outputs.shape[1]):
            outputs[b, k] = within(outputs[b, k], bound)


@compiled
def _simplex(outputs: AnyArray, bound: float, idle_bias: float, shares: AnyArray) -> None:
    """Write the softmax of N + 1 outputs but for the last one, (B, N)."""
    count = shares.shape[1]
    for b in range(shares.shape[0]):
        row = shares[b]
        idle = within(outputs[b, count], bound) + idle_bias
        highest = idle
        for i in range(count):
            row[i] = within(outputs[b, i], bound)
            highest = max(highest, row[i])
        total = math.exp(idle - highest)
        for i in range(count):
            row[i] = math.exp(row[i] - highest)
            total += row[i]
        for i in range(count):
            row[i] /= total


@compiled
def _follow(held: AnyArray, thresholds: AnyArray, free: AnyArray, shares: AnyArray) -> None:
    """Let fractions of the platform that are held, (B, N), follow shares, (B, N), which become the result.

    A change above its threshold, (B, N), is made; of others no more than what is free, (B,).
    """
    count = shares.shape[1]
    for b in range(shares.shape[0]):
        kept = rising = asked = 0.0
        for i in range(count):
            change = shares[b, i] - held[b, i]
            if abs(change) > thresholds[b, i]:
                asked += shares[b, i]
            else:
                change = within(change, free[b])
                kept += held[b, i] + min(change, 0.0)
                rising += max(change, 0.0)
        # More than the platform can be held only where its size has changed.
        fits = 1.0 / kept if kept > 1.0 else 1.0
        part = min(1.0, max(0.0, 1.0 - kept) / rising) if rising > 0.0 else 1.0
        left = max(0.0, 1.0 - kept - part * rising)
        scale = left / asked if asked > left else 1.0
        for i in range(count):
            change = shares[b, i] - held[b, i]
            if abs(change) > thresholds[b, i]:
                shares[b, i] *= scale
            else:
                change = within(change, free[b])
                shares[b, i] = fits * (held[b, i] + min(change, 0.0)) + part * max(change, 0.0)


Maker = Callable[[Mapping[str, Any], Mapping[str, AnyArray], int, Sequence[str]], Network]
KINDS: dict[str, Maker] = {"mlp": mlp, "shared": shared}
"""From `kind`, its settings in the manifest, its arrays, N and the columns that it reads to the network."""

ACTIONS: dict[str, tuple[Callable[[Mapping[str, Any]], Actions], Callable[[int], int]]] = {
    "simplex": (simplex, simplex_outputs),
    "hysteresis": (hysteresis, hysteresis_outputs),
    "corrections": (corrections, correction_outputs),
}
"""From `kind` to what makes the actions of its settings, and the number of outputs for so many agents."""


Decider = Callable[[AnyArray, Packed | None], Array]
"""From observations, (B, N, F) float32, and the view behind them, where it is known, to fractions of
the platform, (B, N)."""


def decider(
    settings: Mapping[str, Any],
    arrays: Mapping[str, AnyArray],
    agents: int,
    columns: Sequence[str] = OBSERVATION_FEATURES,
) -> Decider:
    """What decides by a network and the actions that its outputs stand for.

    Args:
        settings: of the network, its `kind` a key of `KINDS`, with its `actions`, of a kind in `ACTIONS`.
        arrays: of the network.
        agents: N.
        columns: names of the columns of the observation that the network reads, in its order.

    Raises:
        KeyError: a setting is missing.
        ValueError: the parts do not fit each other or the agents.
    """
    actions = settings["actions"]
    make_actions, outputs = ACTIONS[actions["kind"]]
    network, act = KINDS[settings["kind"]](settings, arrays, agents, columns), make_actions(actions)
    width = network(np.zeros((1, agents, len(columns)), dtype=np.float32)).shape[1]
    if width != outputs(agents):
        raise ValueError(
            f"{actions['kind']} for {agents} agents needs {outputs(agents)} outputs, got {width}"
        )
    chosen = [OBSERVATION_FEATURES.index(name) for name in columns]
    everything = tuple(columns) == OBSERVATION_FEATURES

    def decide(observation: AnyArray, packed: Packed | None) -> Array:
        read = observation if everything else np.ascontiguousarray(observation[..., chosen])
        return act(observation, network(read), packed)

    return _Made(decide, (settings, arrays, agents, columns))


class _Made:
    """A decider that is pickled as what it is made from."""

    def __init__(self, decide: Decider, parts: tuple[Any, ...]) -> None:
        self._decide, self._parts = decide, parts

    def __call__(self, observation: AnyArray, packed: Packed | None) -> Array:
        return self._decide(observation, packed)

    def __reduce__(self) -> tuple[Any, ...]:
        return decider, self._parts

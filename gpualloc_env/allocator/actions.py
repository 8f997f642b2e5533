"""What the outputs of an allocator's network stand for: shares, or what receding-horizon control assumes."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gpualloc_env.allocator.receding_horizon import (
    CORRECTIONS,
    DECAY,
    Assumed,
    Constants,
    constants_from,
    of_each,
    plan_observed,
    plan_packed,
)
from gpualloc_env.allocator.weights import number, within
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.observation import OBSERVATION_FEATURES, RESOLUTION, Packed, unbounded
from gpualloc_env.simulation.state import AnyArray, Array

_SHARE, _GPUS, _DEADBAND = (OBSERVATION_FEATURES.index(name) for name in ("share", "gpus", "deadband"))

Actions = Callable[[AnyArray, AnyArray, Packed | None], Array]
"""From observations, (B, N, F), outputs, (B, A), and the view behind the observations, where it is
known, to fractions of the platform, (B, N)."""

Assumption = Callable[[AnyArray], Assumed]
"""From the outputs for each agent, (B, N, A), to what receding-horizon control assumes."""

REVISED = tuple(name for name in Constants._fields if name != "persistence")
"""Constants of receding-horizon control that `assumptions` revises; for persistence a correction does."""
_REVISED = [Constants._fields.index(name) for name in REVISED]
_IS_WEIGHT = np.isin(REVISED, ("inflow_weight", "decoding"))
_PERSISTENCE, _DECODING = (Constants._fields.index(name) for name in ("persistence", "decoding"))
_LEAST = 1e-6  # a constant, or what a weight lacks of 1, is taken for no less
PRICED = np.array([name == "bill" for name in (*CORRECTIONS, *REVISED)], dtype=np.float64)
"""Slopes of `priced_assumptions` where its outputs are zero, (A,): `bill` is then in proportion to b."""
_ASSUMED = len(CORRECTIONS) + len(REVISED)
_MOST_TOLD = math.log(100.0)  # further from 1 s no bill is taken to be


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


def corrections(settings: Mapping[str, Any]) -> Assumption:
    """Bounded corrections for each agent of what receding-horizon control assumes.

    The outputs, clipped to ±bound, are the logarithms of `CORRECTIONS`. Outputs of zero leave the controller
    as it is.

    Args:
        settings: `bound`, and `base`, the controller's `Constants` by name.
    """
    bound, constants = _finite_bound(settings), constants_from(settings["base"])

    def assume(outputs: AnyArray) -> Assumed:
        return Assumed(of_each(constants, len(outputs)), outputs.clip(-bound, bound))

    return assume


def assumptions(settings: Mapping[str, Any]) -> Assumption:
    """All that receding-horizon control assumes: the corrections of each agent, and the constants of all.

    Each output is clipped to ±bound. The first ones of an agent are its `CORRECTIONS`. The others, averaged
    over the agents, say by how much `REVISED` constants differ from those of `base`: by the logarithm of a
    factor, or of odds where the constant is a weight from 0 to 1.

    Args:
        settings: `bound`, and `base`, the controller's `Constants` by name.

    Raises:
        ValueError: a constant of `base` that no factor can change.
    """
    bound, base = _finite_bound(settings), constants_from(settings["base"])
    chosen, each = base[_REVISED], len(CORRECTIONS)
    if not ((chosen > 0) & (~_IS_WEIGHT | (chosen < 1))).all():
        raise ValueError(f"{', '.join(REVISED)} of base must be above 0, those that are weights below 1")

    def assume(outputs: AnyArray) -> Assumed:
        outputs = outputs.astype(np.float64).clip(-bound, bound)
        factors = np.exp(outputs[..., each:].mean(axis=1))
        constants = np.repeat(base[None], len(outputs), axis=0)
        constants[:, _REVISED] = chosen * factors / np.where(_IS_WEIGHT, 1.0 - chosen + chosen * factors, 1.0)
        return Assumed(constants, np.ascontiguousarray(outputs[..., :each]))

    return assume


def priced_assumptions(settings: Mapping[str, Any]) -> Assumption:
    """As `assumptions`, by what the bill weighs in the objective, which no observation shows.

    Each output y of `assumptions` is y₀ + y₁ log b. y₀ are an agent's first outputs, their slopes y₁ the
    others, plus 1 for the constant `bill`. b is `bill_s`, what the bill of the whole platform weighs in
    seconds of a request's mean latency (`Scenario.bill_s`). Where b is not told it is taken to be 1 s.

    Args:
        settings: as in `assumptions`, and where it is told `bill_s`, b [s].
    """
    assume, told = assumptions(settings), told_of(settings)

    def assume_priced(outputs: AnyArray) -> Assumed:
        level, slope = np.split(outputs, 2, axis=-1)
        return assume(level + told * (slope + PRICED))

    return assume_priced


def takes_bill(settings: Mapping[str, Any]) -> bool:
    """Whether actions of these settings can be told what the bill weighs in the objective."""
    return settings.get("kind") == "priced-assumptions"


def told_of(settings: Mapping[str, Any]) -> float:
    """Compute log b of `priced_assumptions`, within ±log 100; 0 where b is not told.

    Raises:
        ValueError: b is not a positive number.
    """
    bill = number(settings, "bill_s") if "bill_s" in settings else 1.0
    if not 0 < bill < math.inf:
        raise ValueError(f"bill_s must be above 0 and finite, got {bill:g}")
    return min(_MOST_TOLD, max(-_MOST_TOLD, math.log(bill)))


def outputs_of(assumed: Assumed, settings: Mapping[str, Any]) -> Array:
    """The outputs, (B, N, A), that `assumptions` would read as this, or as near to it as it can.

    Args:
        assumed: of a controller or another allocator.
        settings: of `assumptions`.
    """
    bound, base = _finite_bound(settings), constants_from(settings["base"])
    constants = np.maximum(assumed.constants, _LEAST)
    # A decay is the logarithm of a factor on −log persistence, which is thereby revised too.
    lasting = np.minimum(constants[:, _PERSISTENCE], 1.0 - _LEAST)
    outputs = np.empty((*assumed.corrections.shape[:2], _ASSUMED))
    outputs[..., : len(CORRECTIONS)] = assumed.corrections
    outputs[..., DECAY] += np.log(np.log(lasting) / math.log(base[_PERSISTENCE]))[:, None]

    def logarithms(values: Array) -> Array:
        rest = np.where(_IS_WEIGHT, np.maximum(1.0 - values, _LEAST), 1.0)
        return np.log(values / rest)

    revised = logarithms(constants[:, _REVISED]) - logarithms(base[_REVISED])
    # No weight that is revised is ever zero: without batching, a batch is full as early as it can be.
    revised[assumed.constants[:, _DECODING] == 0.0, REVISED.index("full_batch")] = -bound
    outputs[..., len(CORRECTIONS) :] = revised[:, None]
    return outputs.clip(-bound, bound)


def planned(assume: Assumption) -> Actions:
    """Shares as receding-horizon control plans them on what the outputs assume."""

    def shares(observation: AnyArray, outputs: AnyArray, packed: Packed | None) -> Array:
        assumed = assume(outputs.reshape(*observation.shape[:2], -1))
        if packed is None:
            return plan_observed(observation, *assumed)
        return plan_packed(packed, *assumed)

    return shares


def _finite_bound(settings: Mapping[str, Any]) -> float:
    bound = number(settings, "bound")
    if not 0 < bound < math.inf:
        raise ValueError("bound must be above 0 and finite")
    return bound


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


ACTIONS: dict[str, tuple[Callable[[Mapping[str, Any]], Actions], int, int]] = {
    "simplex": (simplex, 1, 1),
    "hysteresis": (hysteresis, 2, 1),
    "corrections": (lambda settings: planned(corrections(settings)), len(CORRECTIONS), 0),
    "assumptions": (lambda settings: planned(assumptions(settings)), _ASSUMED, 0),
    "priced-assumptions": (lambda settings: planned(priced_assumptions(settings)), 2 * _ASSUMED, 0),
}
"""From `kind` to what makes the actions of its settings, and the outputs of each agent, which stand agent by
agent, and of idle capacity, last."""


def outputs_for(kind: str, agents: int) -> int:
    """A, the numbers in an action of a kind for so many agents."""
    _, each, idle = ACTIONS[kind]
    return each * agents + idle


OUTPUTS_ALONE = frozenset({"simplex"})
"""The kinds whose shares do not depend on what is seen."""

ASSUMPTIONS: dict[str, Callable[[Mapping[str, Any]], Assumption]] = {
    "corrections": corrections,
    "assumptions": assumptions,
    "priced-assumptions": priced_assumptions,
}
"""Of those whose shares receding-horizon control plans, from `kind` to what makes what it assumes."""

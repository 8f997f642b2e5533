"""The objective: five positively named terms of a step, and the weights that price them."""

from gpualloc_env.agents import Model, NonNegative
from gpualloc_env.compiled import compiled
from gpualloc_env.state import (
    BACKLOG,
    DT,
    GPUS,
    LATE,
    MIN_SHARE,
    QUEUE_END,
    SERVED,
    SHARE,
    TOTAL_RATE,
    WEIGHT,
    WEIGHTED_RATE,
    AnyArray,
)


class Objective(Model):
    """Weights of reward = −(α·latency + β·cost − γ·throughput + σ·slo + φ·shortfall)."""

    latency: NonNegative = 1.0
    """α [1/s]"""
    cost: NonNegative = 0.2
    """β, for the whole platform billed during one step"""
    throughput: NonNegative = 0.2
    """γ, for the whole offered rate served"""
    slo: NonNegative = 0.0
    """σ, for every request passing its service objective"""
    shortfall: NonNegative = 0.0
    """φ, for no agent with work holding any of its minimum share"""


@compiled
def latency(state: AnyArray, agents: AnyArray, episode: AnyArray, b: int) -> float:
    """Σ ω backlog / Σ ω λ̄ [s]: the weighted mean time in the system, by Little's law."""
    if episode[b, WEIGHTED_RATE] == 0.0:
        return 0.0
    total = 0.0
    for i in range(state.shape[2]):
        total += agents[b, WEIGHT, i] * state[b, BACKLOG, i]
    return total / episode[b, WEIGHTED_RATE]


@compiled
def cost(state: AnyArray, settings: AnyArray, b: int) -> float:
    """Σ g / G: the fraction of the platform that is billed."""
    total = 0.0
    for i in range(state.shape[2]):
        total += state[b, SHARE, i]
    return total / settings[GPUS]


@compiled
def throughput(state: AnyArray, episode: AnyArray, settings: AnyArray, b: int) -> float:
    """Σ s / (dt Σ λ̄): what was served as a fraction of what is offered."""
    if episode[b, TOTAL_RATE] == 0.0:
        return 0.0
    total = 0.0
    for i in range(state.shape[2]):
        total += state[b, SERVED, i]
    return total / (settings[DT] * episode[b, TOTAL_RATE])


@compiled
def slo(state: AnyArray, agents: AnyArray, episode: AnyArray, settings: AnyArray, b: int) -> float:
    """Σ ω late / (dt Σ ω λ̄): requests that pass their service objective in this step."""
    if episode[b, WEIGHTED_RATE] == 0.0:
        return 0.0
    total = 0.0
    for i in range(state.shape[2]):
        total += agents[b, WEIGHT, i] * state[b, LATE, i]
    return total / (settings[DT] * episode[b, WEIGHTED_RATE])


@compiled
def shortfall(state: AnyArray, agents: AnyArray, b: int) -> float:
    """Σ max(0, R − g) / Σ R over the agents that had work in this step."""
    missing = 0.0
    guaranteed = 0.0
    for i in range(state.shape[2]):
        if state[b, QUEUE_END, i] + state[b, SERVED, i] > 0.0:
            missing += max(0.0, agents[b, MIN_SHARE, i] - state[b, SHARE, i])
            guaranteed += agents[b, MIN_SHARE, i]
    return missing / guaranteed if guaranteed > 0.0 else 0.0

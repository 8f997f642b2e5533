"""The objective: five positively named terms of a step, and the weights that price them."""

from gpualloc_env.agents import Model, NonNegative
from gpualloc_env.compiled import inlined


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


@inlined
def latency(weighted_backlog: float, per_weighted_rate: float) -> float:
    """Σ ω backlog / Σ ω λ̄ [s]: the weighted mean time in the system, by Little's law."""
    return weighted_backlog * per_weighted_rate


@inlined
def cost(held: float, gpus: float) -> float:
    """Σ g / G: the fraction of the platform that is billed."""
    return held / gpus


@inlined
def throughput(served: float, per_total_rate: float, per_dt: float) -> float:
    """Σ s / (dt Σ λ̄): what was served as a fraction of what is offered."""
    return served * per_dt * per_total_rate


@inlined
def slo(weighted_late: float, per_weighted_rate: float, per_dt: float) -> float:
    """Σ ω late / (dt Σ ω λ̄): requests that pass their service objective in this step."""
    return weighted_late * per_dt * per_weighted_rate


@inlined
def shortfall(missing: float, guaranteed: float) -> float:
    """Σ max(0, R − g) / Σ R over the agents that had work in this step."""
    return missing / guaranteed if missing > 0.0 else 0.0

"""The objective: six positively named terms of a step, and the weights that price them."""

from gpualloc_env.scenario.model import Model, Weight


class Objective(Model):
    """Weights of reward = −(α·latency + β·cost − γ·throughput + σ·slo + φ·shortfall + θ·task)."""

    latency: Weight = 1.0
    """α [1/s]"""
    cost: Weight = 0.2
    """β, for the whole platform billed during one step"""
    throughput: Weight = 0.2
    """γ, for the whole offered rate served"""
    slo: Weight = 0.0
    """σ, for every request that misses its SLO"""
    shortfall: Weight = 0.0
    """φ, for no agent with work holding any of its minimum share"""
    task: Weight = 0.0
    """θ [1/s], for the mean time of a task; tasks are those of a scenario with `service = "requests"`"""

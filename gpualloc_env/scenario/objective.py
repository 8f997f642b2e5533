"""The objective: five positively named terms of a step, and the weights that price them."""

from gpualloc_env.scenario.agents import Model, NonNegative


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

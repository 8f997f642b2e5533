"""The agents that share the GPUs."""

from typing import Annotated

from pydantic import Field

from gpualloc_env.scenario.model import LARGEST, MOST_RPS, Model, Number, PositiveSeconds, Weight, Whole


class Agent(Model):
    """One model server, described as in Table I of arXiv 2512.22149."""

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.-]+$")]
    model_mb: Weight
    """Size of the weights [MB]; sets the time of a cold start."""
    throughput_rps: Annotated[Number, Field(gt=0, le=MOST_RPS)]
    """Base throughput T_i [requests/s] on one whole GPU."""
    min_share: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Guaranteed share R_i [GPU]: measured and priced, never enforced."""
    priority: Annotated[Whole, Field(ge=1, le=10**6)] = 1
    """P_i: 1 high, 2 medium, 3 low. Its weight in the objective is ω_i = 1/P_i."""
    kappa: Annotated[Number, Field(gt=0, le=LARGEST)] | None = None
    """κ of the saturating curve f(g) = g (1 + κ)/(g + κ) [GPU]; none: throughput is linear in the share."""
    slo_s: PositiveSeconds = 2.0
    """Service objective: a request should leave within so many seconds."""


PAPER_AGENTS = (
    Agent(name="coordinator", model_mb=500, throughput_rps=100, min_share=0.10, priority=1, slo_s=1),
    Agent(name="nlp", model_mb=2000, throughput_rps=50, min_share=0.30, priority=2, slo_s=2),
    Agent(name="vision", model_mb=1500, throughput_rps=60, min_share=0.25, priority=2, slo_s=2),
    Agent(name="reasoning", model_mb=3000, throughput_rps=30, min_share=0.35, priority=1, slo_s=5),
)

SATURATING_AGENTS = tuple(
    agent.model_copy(update={"kappa": kappa})
    for agent, kappa in zip(PAPER_AGENTS, (0.5, 1.0, 1.0, 2.0), strict=True)
)

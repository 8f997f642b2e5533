"""The agents that share the GPUs, and how their throughput grows with their share."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Model(BaseModel):
    """Base of every configuration object: frozen, keyword-only, no unknown key accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Linear:
    """Throughput in proportion to the share, f(g) = g: the paper's assumption."""

    def __call__(self, share: float) -> float:
        """Fraction of the base throughput reached with `share` GPUs."""
        return share


@dataclass(frozen=True, slots=True)
class Saturating:
    """Concave throughput, f(g) = g (1 + κ) / (g + κ), so that f(0) = 0 and f(1) = 1.

    Small kernels cannot fill a whole GPU: measured profiles rise steeply at first, and the
    smaller κ [GPU] is, the earlier they flatten.
    """

    kappa: float

    def __call__(self, share: float) -> float:
        """Fraction of the base throughput reached with `share` GPUs."""
        return share * (1 + self.kappa) / (share + self.kappa)


class Agent(Model):
    """One model server, described as in Table I of arXiv 2512.22149."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$")]
    model_mb: NonNegative
    """Size of the weights [MB]; sets the time of a cold start."""
    throughput_rps: Positive
    """Base throughput T_i [requests/s] on one whole GPU."""
    min_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Guaranteed share R_i [GPU]: measured and priced, never enforced."""
    priority: Annotated[int, Field(ge=1)] = 1
    """P_i: 1 high, 2 medium, 3 low. Its weight in the objective is ω_i = 1/P_i."""
    kappa: Positive | None = None
    """κ of the saturating curve [GPU]; none means that throughput is linear in the share."""
    slo_s: Positive = 2.0
    """Service objective: a request should leave within so many seconds."""

    @property
    def curve(self) -> Linear | Saturating:
        """The throughput curve f_i, a function of the share in GPUs."""
        return Linear() if self.kappa is None else Saturating(self.kappa)


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

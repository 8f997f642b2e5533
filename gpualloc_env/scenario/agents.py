"""The agents that share the GPUs."""

from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import Field, model_validator

from gpualloc_env.scenario.model import (
    LARGEST,
    MOST_RPS,
    Model,
    Number,
    PositiveSeconds,
    Seconds,
    Weight,
    Whole,
)
from gpualloc_env.scenario.models import REFERENCE_GPU, look_up, tokens_beside
from gpualloc_env.traces.log import MOST_TOKENS

_DEFAULT_BATCH = 64
NEEDED_TO_SERVE_CALLS = (
    "iteration_s",
    "iteration_s_per_call",
    "prefill_s_per_token",
    "prompt_tokens",
    "output_tokens",
)
_THROUGHPUT_FROM = (*NEEDED_TO_SERVE_CALLS, "max_batch")


class Agent(Model):
    """One model server, described as in Table I of arXiv 2512.22149.

    One that serves calls has besides the times of its iterations and the tokens of its calls, its own or
    those of a `model` of the catalogue on a `gpu`; its base throughput follows from them. A batch of b
    calls on g GPUs makes f(g)/(a + c·b) tokens a second for each call.
    """

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.-]+$")]
    model_mb: Weight
    """Size of the weights [MB]; sets the time of a cold start."""
    throughput_rps: Annotated[Number, Field(gt=0, le=MOST_RPS)]
    """Base throughput T_i [requests/s] on one whole GPU; of an agent that serves calls
    1/(e·p̄ + ō·(a + c·B)/B), with a full batch and mean tokens."""
    min_share: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Guaranteed share R_i [GPU]: measured and priced, never enforced."""
    priority: Annotated[Whole, Field(ge=1, le=10**6)] = 1
    """P_i: 1 high, 2 medium, 3 low. Its weight in the objective is ω_i = 1/P_i."""
    kappa: Annotated[Number, Field(gt=0, le=LARGEST)] | None = None
    """κ of the saturating curve f(g) = g (1 + κ)/(g + κ) [GPU]; none: throughput is linear in the share."""
    slo_s: PositiveSeconds = 2.0
    """Service objective: a request should leave within so many seconds."""
    model: str | None = None
    """A model of the catalogue, which gives what the table leaves out."""
    gpu: str | None = None
    """The GPU that the catalogue has measured it on."""
    iteration_s: Seconds | None = None
    """a, the part of a decode iteration on a whole GPU that the batch does not change [s]."""
    iteration_s_per_call: Seconds | None = None
    """c, what each call of the batch adds to an iteration [s]."""
    prefill_s_per_token: Seconds | None = None
    """e, prefill on a whole GPU [s/token]."""
    max_batch: Annotated[Whole, Field(ge=1, le=MOST_TOKENS)] = _DEFAULT_BATCH
    """B, calls that run at once at most."""
    kv_tokens: Annotated[Whole, Field(ge=1, le=MOST_TOKENS)] = MOST_TOKENS
    """K, capacity of the KV cache in tokens of prompts and outputs."""
    kv_mb_per_token: Weight = 0.0
    """Size of a token in the KV cache [MB]."""
    prompt_tokens: Annotated[Number, Field(ge=0, le=MOST_TOKENS)] | None = None
    """p̄, mean of a call's prompt."""
    output_tokens: Annotated[Number, Field(gt=0, le=MOST_TOKENS)] | None = None
    """ō, mean of a call's output."""
    prompt_cv: Annotated[Number, Field(ge=0, le=100)] = 0.0
    """Coefficient of variation of the lognormal law of prompts."""
    output_cv: Annotated[Number, Field(ge=0, le=100)] = 0.0
    """Coefficient of variation of the lognormal law of outputs."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        """Add what the catalogue knows, and the base throughput that follows."""
        if not isinstance(data, dict):
            return data
        given = cast(dict[str, Any], data)
        if given.get("model") is None and given.get("gpu") is None:
            known: dict[str, Any] = {}
        else:
            known = look_up(
                given.get("model"), given.get("gpu"), given.get("prompt_tokens"), given.get("output_tokens")
            )
        whole = {**known, **given}
        if any(whole.get(name) is not None for name in NEEDED_TO_SERVE_CALLS):
            # What is wrong with the others is said by their own checks.
            whole.setdefault("throughput_rps", _throughput(whole) or 1.0)
        return whole

    @model_validator(mode="after")
    def _check(self) -> "Agent":
        missing = [name for name in NEEDED_TO_SERVE_CALLS if getattr(self, name) is None]
        if len(missing) == len(NEEDED_TO_SERVE_CALLS):
            return self
        if missing:
            raise ValueError(
                f"agent {self.name!r} serves calls but has no {', '.join(missing)}; add them, or a model and "
                "a gpu of the catalogue, whose times they are"
            )
        throughput = _throughput(self.__dict__)
        if throughput is None:
            raise ValueError(
                f"agent {self.name!r}: its calls take no time at all; raise prefill_s_per_token, "
                "iteration_s or iteration_s_per_call"
            )
        if abs(self.throughput_rps / throughput - 1.0) > 1e-6:
            raise ValueError(
                f"agent {self.name!r}: throughput_rps = {self.throughput_rps:g}, but its call times "
                f"give {throughput:.6g} calls/s; leave throughput_rps out"
            )
        if (self.prompt_tokens or 0) + (self.output_tokens or 0) > self.kv_tokens:
            raise ValueError(
                f"agent {self.name!r}: a call of {self.prompt_tokens:g} + {self.output_tokens:g} tokens is "
                f"larger than kv_tokens = {self.kv_tokens}; no such call could ever run"
            )
        return self

    def alone_s(self, prompt: float, output: float) -> float:
        """Time of a call of so many tokens on a whole GPU that serves no other: e·p + (o − 1)(a + c) [s]."""
        per_token = (self.iteration_s or 0.0) + (self.iteration_s_per_call or 0.0)
        return (self.prefill_s_per_token or 0.0) * prompt + (output - 1) * per_token


def _throughput(table: Mapping[str, Any]) -> float | None:
    """T = 1/(e·p̄ + ō·(a + c·B)/B) of an agent's table [calls/s]; none where it lacks a number."""
    numbers = [table.get(name, _DEFAULT_BATCH if name == "max_batch" else None) for name in _THROUGHPUT_FROM]
    if (
        not all(isinstance(number, int | float) and 0 <= number <= LARGEST for number in numbers)
        or not numbers[-1]
    ):
        return None
    iteration, per_call, prefill, prompt, output, batch = numbers
    seconds = prefill * prompt + output * (iteration + per_call * batch) / batch
    return 1.0 / seconds if seconds > 0 else None


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


def language_agent(name: str, model: str, prompt_tokens: float, output_tokens: float, **given: Any) -> Agent:
    """An agent of the catalogue on the reference GPU; the spread of its tokens is assumed."""
    table: dict[str, Any] = {
        "name": name,
        "model": model,
        "gpu": REFERENCE_GPU,
        "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens,
        "prompt_cv": 0.8,
        "output_cv": 0.9,
        **given,
    }
    return Agent(**table)


_7B = {"kv_tokens": tokens_beside("llama-2-7b", REFERENCE_GPU, gpus=2), "max_batch": 64}
_20B = {"kv_tokens": tokens_beside("internlm-20b", REFERENCE_GPU, gpus=2), "max_batch": 32}
LLM_AGENTS = (
    language_agent("coordinator", "llama-2-7b", 800, 120, output_cv=0.7, min_share=0.10, slo_s=2, **_7B),
    language_agent("nlp", "llama-2-7b", 1500, 200, min_share=0.30, priority=2, slo_s=5, **_7B),
    language_agent("vision", "llama-2-7b", 1500, 60, min_share=0.25, priority=2, slo_s=5, **_7B),
    language_agent("reasoning", "internlm-20b", 1500, 700, min_share=0.35, slo_s=15, **_20B),
)
"""The paper's four as language models on H100s; tokens assumed. Their platform is one pool of two GPUs, so
the KV caches have the memory of both but for the weights."""

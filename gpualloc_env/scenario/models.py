"""The catalogue of measured language models: what a server of calls needs, by model and GPU.

The times of iterations and of prefill, and those of starts, are fitted to published measurements by
`python -m training.catalogue`, which writes `llm_times.csv` and `llm_starts.csv` into `gpualloc_env/data`.
The measurements leave attention out, so what a call adds to an iteration is their slope and the time in
which the GPU's memory reads the KV cache (keys and values) of a call of mean length: its prompt and half its
output. Weights are two bytes for each parameter, keys and values two bytes for each number.

Not measured, but assumed: κ of the throughput curve, and that all of the GPU's memory but the weights is
KV cache.
"""

import csv
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from gpualloc_env.traces.log import MOST_TOKENS

DATA = Path(__file__).parent.parent / "data"
BYTES_PER_NUMBER = 2
ASSUMED_KAPPA = (0.5, 1.0)
"""κ [GPU] up to 10 billion parameters, and above; assumed, not measured."""


class LanguageModel(NamedTuple):
    """The published dimensions of a model."""

    billions: float  # parameters
    layers: int
    kv_heads: int  # heads that keys and values are kept for
    head_dim: int

    @property
    def model_mb(self) -> float:
        """Size of the weights [MB]."""
        return 1000.0 * BYTES_PER_NUMBER * self.billions

    @property
    def kv_mb_per_token(self) -> float:
        """Size of a token in the KV cache: keys and values of all layers [MB]."""
        return 2 * BYTES_PER_NUMBER * self.layers * self.kv_heads * self.head_dim / 1e6


class Gpu(NamedTuple):
    """What a GPU's data sheet says."""

    memory_mb: float
    memory_mb_per_s: float  # bandwidth


MODELS = {
    "phi-2": LanguageModel(2.78, layers=32, kv_heads=32, head_dim=80),
    "llama-2-7b": LanguageModel(6.74, layers=32, kv_heads=32, head_dim=128),
    "llama-3-8b": LanguageModel(8.03, layers=32, kv_heads=8, head_dim=128),
    "internlm-20b": LanguageModel(20.1, layers=60, kv_heads=40, head_dim=128),
    "codellama-34b": LanguageModel(33.7, layers=48, kv_heads=8, head_dim=128),
    "llama-2-70b": LanguageModel(69.0, layers=80, kv_heads=8, head_dim=128),
}
PUBLISHED_NAMES = {
    "microsoft/phi-2": "phi-2",
    "meta-llama/Llama-2-7b-hf": "llama-2-7b",
    "meta-llama/Meta-Llama-3-8B": "llama-3-8b",
    "internlm/internlm-20b": "internlm-20b",
    "codellama/CodeLlama-34b-Instruct-hf": "codellama-34b",
    "meta-llama/Llama-2-70b-hf": "llama-2-70b",
}
"""Names here by the names under which the models are published."""
GPUS = {
    "h100": Gpu(80_000, 3.35e6),
    "a100": Gpu(80_000, 2.0e6),
    "a40": Gpu(48_000, 0.696e6),
}
REFERENCE_GPU = "h100"
"""The GPU of speed 1, on which the agents' times are measured."""


class Times(NamedTuple):
    """What was measured of a model on a GPU."""

    iteration_s: float  # a
    iteration_s_per_call: float  # [s/call] without attention
    prefill_s_per_token: float  # e


class Start(NamedTuple):
    """Time of a start over the size of a model."""

    seconds: float
    seconds_per_billion: float  # parameters


@lru_cache(maxsize=1)
def measured_times() -> dict[tuple[str, str], Times]:
    """The measured times by model and GPU."""
    with (DATA / "llm_times.csv").open(encoding="utf-8", newline="") as file:
        return {
            (row["model"], row["gpu"]): Times(*(float(row[name]) for name in Times._fields))
            for row in csv.DictReader(file)
        }


@lru_cache(maxsize=1)
def measured_starts() -> dict[str, Start]:
    """Measured `cold_start`, `load_weights`, `wake_from_host`, `mig_create` and `mig_destroy`."""
    with (DATA / "llm_starts.csv").open(encoding="utf-8", newline="") as file:
        return {
            row["quantity"]: Start(float(row["seconds"]), float(row["seconds_per_billion"]))
            for row in csv.DictReader(file)
        }


def tokens_beside(model: str, gpu: str, gpus: int = 1) -> int:
    """Capacity of the KV cache that some GPUs have beside the weights of a model [tokens]; assumed."""
    size = MODELS[model]
    return int((gpus * GPUS[gpu].memory_mb - size.model_mb) / size.kv_mb_per_token)


def look_up(model: object, gpu: object, prompt_tokens: Any, output_tokens: Any) -> dict[str, Any]:
    """The keys of an agent's table that the catalogue fills in.

    Args:
        model: a name in `MODELS`.
        gpu: a name in `GPUS`.
        prompt_tokens: mean of a call's prompt.
        output_tokens: mean of its output; with the prompt it sets how much of the KV cache is read.

    Raises:
        ValueError: the pair was not measured, or the weights do not fit on the GPU.
    """
    times = measured_times()
    if not isinstance(model, str) or not isinstance(gpu, str) or (model, gpu) not in times:
        known = "; ".join(
            f"{other} on {', '.join(each for name, each in times if name == other)}" for other in MODELS
        )
        raise ValueError(f"model = {model!r} on gpu = {gpu!r} is not in the catalogue, which has {known}")
    size, card, time = MODELS[model], GPUS[gpu], times[model, gpu]
    kv_tokens = tokens_beside(model, gpu)
    if kv_tokens < 1:
        raise ValueError(
            f"model = {model!r} does not fit on gpu = {gpu!r}: its weights take {size.model_mb:,.0f} MB of "
            f"{card.memory_mb:,.0f} MB; give a smaller model or another gpu"
        )
    read_s = size.kv_mb_per_token / card.memory_mb_per_s
    # What is wrong with others is said by their own checks.
    tokens = [
        number
        for number in (prompt_tokens, output_tokens)
        if isinstance(number, int | float) and 0 <= number <= MOST_TOKENS
    ]
    context = tokens[0] + tokens[1] / 2 if len(tokens) == 2 else 0.0
    return {
        "model_mb": size.model_mb,
        "iteration_s": time.iteration_s,
        "iteration_s_per_call": time.iteration_s_per_call + context * read_s,
        "prefill_s_per_token": time.prefill_s_per_token,
        "kappa": ASSUMED_KAPPA[size.billions > 10],
        "kv_tokens": kv_tokens,
        "kv_mb_per_token": size.kv_mb_per_token,
    }

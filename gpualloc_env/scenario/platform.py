"""The GPUs, what it costs to hold them, and what it costs to change one's mind."""

from fractions import Fraction
from math import inf
from typing import Annotated, Any, Literal, cast

from pydantic import Field, field_validator, model_validator

from gpualloc_env.scenario.model import Gpus, Model, PositiveGpus, Seconds, Unbounded, Weight
from gpualloc_env.scenario.models import BYTES_PER_NUMBER, measured_starts
from gpualloc_env.simulation.shares import SLICE_TOLERANCE

Preset = Literal["serverless", "vllm", "vllm-sleep", "mig"]


class Platform(Model):
    """`gpus` identical GPUs. The defaults are the paper's: one T4 without any friction."""

    preset: Annotated[Preset | None, Field(exclude=True)] = None
    """A platform of `PLATFORMS`, whose frictions take the place of those that are not given."""
    gpus: PositiveGpus = 1.0
    """G, the capacity that all agents share [GPU]."""
    max_share: PositiveGpus = 1.0
    """Maximum share of one agent [GPU]."""
    slice: PositiveGpus | None = None
    """Granularity of a share [GPU], such as 1/7 under MIG; none means that shares are continuous."""
    reallocation_s: Seconds = 0.0
    """Service time lost when an agent's share changes by more than `deadband` [s]."""
    deadband: Gpus = 0.0
    """Largest change of a share that costs nothing [GPU]."""
    container_start_s: Seconds = 0.0
    """Fixed part of a cold start [s]."""
    load_mb_per_s: Annotated[Unbounded, Field(gt=0)] = inf
    """Speed at which weights reach the GPU [MB/s]; infinite means at once."""
    keep_alive_s: Annotated[Unbounded, Field(ge=0)] = inf
    """Idle time after which a model is unloaded [s]; infinite means never."""
    sleep_after_s: Annotated[Unbounded, Field(ge=0)] | None = None
    """In a cluster, idle time after which a model leaves its GPU [s], to sleep in the host's memory until
    `keep_alive_s`; none is `keep_alive_s` itself, after which it is gone at once."""
    wake_s: Seconds = 0.0
    """In a cluster, fixed part of the time in which a sleeping model wakes [s]."""
    wake_mb_per_s: Annotated[Unbounded, Field(gt=0)] = inf
    """In a cluster, speed at which weights go from the host to a GPU [MB/s]; infinite means at once."""
    usd_per_gpu_hour: Weight = 0.72
    """Price of one GPU for an hour [$]."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        """Put the frictions of the preset in its place."""
        if not isinstance(data, dict):
            return data
        given = cast(dict[str, Any], data)
        # What is no platform is refused by the check of the field.
        preset = given.get("preset")
        known = PLATFORMS.get(preset) if isinstance(preset, str) else None
        return {**known.model_dump(exclude_unset=True), **given, "preset": None} if known else given

    @field_validator("slice", mode="before")
    @classmethod
    def _accept_fraction(cls, value: Any) -> Any:
        """TOML has no way to write a seventh, so "1/7" is read as a fraction."""
        if not isinstance(value, str):
            return value
        try:
            return float(Fraction(value))
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"give a number of GPUs or a fraction such as '1/7', got {value!r}") from None

    @field_validator("slice")
    @classmethod
    def _whole_part(cls, value: float | None) -> float | None:
        """A decimal that stands for one of so many parts is that part, lest all of them exceed the whole."""
        parts = round(1.0 / value) if value else 0
        return 1.0 / parts if parts and value and abs(value * parts - 1.0) < SLICE_TOLERANCE else value

    @model_validator(mode="after")
    def _check(self) -> "Platform":
        limit = min(self.gpus, self.max_share)
        if self.slice is not None and self.slice > limit * (1 + 1e-9):
            raise ValueError(
                f"slice must not exceed what one agent can hold, {limit:g} GPU, got {self.slice:g}; "
                "every share would round down to nothing"
            )
        return self

    def cold_start_s(self, model_mb: float) -> float:
        """Time from an unloaded model to its first request [s]."""
        return self.container_start_s + model_mb / self.load_mb_per_s


FRICTIONLESS = Platform()
SERVERLESS = Platform(
    reallocation_s=0.1, deadband=0.02, container_start_s=2.0, load_mb_per_s=1000.0, keep_alive_s=10.0
)


def _starting(quantity: str, platform: Platform) -> Platform:
    """The platform with cold starts that take what was measured of a quantity, by the size of the weights."""
    start = measured_starts()[quantity]
    speed = 1000.0 * BYTES_PER_NUMBER / start.seconds_per_billion
    return platform.model_copy(update={"container_start_s": start.seconds, "load_mb_per_s": speed})


VLLM = _starting("cold_start", Platform(reallocation_s=0.1, deadband=0.02, keep_alive_s=60.0))
"""A restart of vLLM. Measured are its cold starts; assumed are the other frictions, and how long one keeps a
model that takes most of a minute to come back."""
VLLM_SLEEP = _starting("wake_from_host", Platform(reallocation_s=0.1, deadband=0.02, keep_alive_s=10.0))
"""vLLM that sleeps with its weights in the memory of the host; the rest is assumed as for `VLLM`."""
_RESIZED_S = measured_starts()["mig_destroy"].seconds + measured_starts()["mig_create"].seconds
MIG = _starting("cold_start", Platform(slice=1 / 7, reallocation_s=_RESIZED_S))
"""Instances of an A100 in sevenths: a change of share destroys one and creates another, both measured on an
A30. Instances stay, so that a model is loaded but once."""
PLATFORMS = {"serverless": SERVERLESS, "vllm": VLLM, "vllm-sleep": VLLM_SLEEP, "mig": MIG}
"""Platforms by the names that stand for their frictions."""

LLM = Platform(
    gpus=2.0,
    reallocation_s=0.1,
    deadband=0.02,
    container_start_s=0.3,
    load_mb_per_s=15_000.0,
    keep_alive_s=10.0,
)
"""Two GPUs for language models, which wake from host memory."""

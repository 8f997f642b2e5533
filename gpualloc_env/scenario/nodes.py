"""The nodes of a cluster and the network between them."""

from math import inf
from typing import Annotated, Any, cast

from pydantic import Field, model_validator

from gpualloc_env.scenario.model import LARGEST, Model, Number, Seconds, Unbounded, Weight, Whole
from gpualloc_env.scenario.models import GPUS, REFERENCE_GPU

MOST_GPUS_OF_A_NODE = 1024


def relative_speed(gpu: str) -> float:
    """The memory bandwidth of a GPU of the catalogue as a multiple of an H100's.

    Reading the weights takes most of an iteration.
    """
    return GPUS[gpu].memory_mb_per_s / GPUS[REFERENCE_GPU].memory_mb_per_s


class Node(Model):
    """Some GPUs of one kind with a host memory that they share."""

    gpus: Annotated[Whole, Field(ge=1, le=MOST_GPUS_OF_A_NODE)] = 1
    """How many GPUs."""
    gpu: str | None = None
    """Their name in the catalogue, which gives the memory and the speed that the table leaves out; the speed,
    `relative_speed`, is for agents whose times are an H100's."""
    memory_mb: Annotated[Number, Field(gt=0, le=LARGEST)]
    """Memory of each GPU for weights and KV caches [MB]."""
    speed: Annotated[Number, Field(gt=0, le=1000)]
    """Speed of each GPU, as a multiple of that of the GPU on which the agents' times are measured."""
    host_memory_mb: Weight = 0.0
    """Memory of the host for models that sleep [MB]."""
    usd_per_gpu_hour: Weight | None = None
    """Price of one of its GPUs for an hour [$]; none is the platform's."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        """Add what the catalogue knows of the GPU."""
        if not isinstance(data, dict):
            return data
        given = cast(dict[str, Any], data)
        name = given.get("gpu")
        if name is None:
            return given
        if not isinstance(name, str) or name not in GPUS:
            raise ValueError(
                f"gpu = {name!r} is not in the catalogue, which has {', '.join(GPUS)}; or leave it out and "
                "give memory_mb and speed"
            )
        return {"memory_mb": GPUS[name].memory_mb, "speed": relative_speed(name), **given}


class Network(Model):
    """What it takes to hand a call to another node. The defaults take no time."""

    hop_s: Seconds = 0.0
    """Time of a hop between nodes, whatever is sent [s]."""
    network_mb_per_s: Annotated[Unbounded, Field(gt=0)] = inf
    """Speed at which a prompt, of four bytes a token, goes from node to node [MB/s]."""

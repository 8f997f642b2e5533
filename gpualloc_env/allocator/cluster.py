"""What a learned allocator of clusters is made of: rows of instances, a network over them, corrections.

An instance is the pair of an agent and a GPU. The network writes numbers for each of them, and these correct
what a placement by demand and receding-horizon control on each GPU assume.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np

from gpualloc_env.allocator.levels import batched, parts_of, split
from gpualloc_env.allocator.placement import DemandWeights, by_demand
from gpualloc_env.allocator.receding_horizon import CORRECTIONS, constants_from, plan
from gpualloc_env.allocator.weights import accumulate, joined, number, tanh, widths_of
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.observation import OBSERVATION_FEATURES, observe
from gpualloc_env.simulation.placement import ClusterView
from gpualloc_env.simulation.state import AnyArray, Array

T = TypeVar("T")
_OF_AGENTS = (
    *("queue", "inflow", "rate", "oldest_age", "throughput", "priority", "cold_start", "loading"),
    *("running", "waiting", "prefill", "kv_used"),
)
_CHOSEN = [OBSERVATION_FEATURES.index(name) for name in _OF_AGENTS]
CLUSTER_COLUMNS = (
    *(f"agent.{name}" for name in (*_OF_AGENTS, "held", "instances")),
    *("instance.share", "instance.resident", "instance.asleep", "instance.loading", "instance.idle"),
    *("instance.calls", "instance.running", "instance.kv_used", "instance.fits"),
    *("gpu.memory_free", "gpu.given", "gpu.speed"),
    *("gpu.work", "cluster.work"),
)
"""Columns of the rows of instances, in [0, 1]; none depends on how many agents or GPUs there are. `work` is
the time in which the GPU would serve the calls there, and a GPU of speed 1 all queues."""
OUTPUTS = (*CORRECTIONS, "attraction")
"""What the network writes for each instance: the logarithms that correct the plan of its GPU, and what speaks
for the instance where agents are placed, see `by_demand`."""
ATTRACTION = 0.25
"""What one of the latter speaks for [GPU]: it takes less to move an instance than to change a share."""


def instance_rows(view: ClusterView) -> AnyArray:
    """The rows of all instances, (B, N, K, F) float32, of a view of (B, …) arrays."""
    rows = np.empty((*view.share.shape, len(CLUSTER_COLUMNS)), np.float32)

    def squashed(values: AnyArray, unit: Any = 1.0) -> AnyArray:
        return values / (unit + values)

    agents = view.agents
    work = view.calls / (agents.throughput[:, :, None] * view.speed)
    rows[..., : len(_CHOSEN)] = observe(agents)[..., _CHOSEN][:, :, None]
    needs = view.need_mb[:, :, None]
    columns = (
        squashed(view.held, agents.throughput)[:, :, None],
        squashed(view.resident.sum(axis=2))[:, :, None],
        view.share,
        view.resident,
        view.asleep,
        squashed(view.loading),
        np.minimum(1.0, view.idle / max(view.sleep_after_s, agents.dt)),
        squashed(view.calls),
        view.running,
        view.kv_used,
        np.maximum(view.resident, needs <= view.free_mb[:, None]),
        (view.free_mb / view.memory_mb).clip(0.0, 1.0)[:, None],
        np.minimum(1.0, view.share.sum(axis=1))[:, None],
        squashed(view.speed),
        squashed(work.sum(axis=1))[:, None],
        squashed((agents.queue / agents.throughput).sum(axis=1))[:, None, None],
    )
    for column, values in enumerate(columns, start=len(_CHOSEN)):
        rows[..., column] = values
    return rows


def exchangeable(
    settings: Mapping[str, Any], arrays: Mapping[str, AnyArray], columns: Sequence[str]
) -> Callable[[AnyArray], Array]:
    """A network over instances, equivariant to the order of agents and to that of GPUs.

    Of the row x of an instance h_0 = tanh(x W_0 + b_0). Each further layer is h_k = tanh(h_(k−1) W_k +
    max over the agent's instances (h_(k−1)) A_k + max over the GPU's (h_(k−1)) G_k + b_k), and the last one
    is linear in h alone. Nothing depends on the numbers of agents and GPUs, so any are served (Hartford et
    al., "Deep Models of Interactions Across Sets", ICML 2018). In float64, as `networks.shared` is.

    Args:
        settings: `layers` (widths, the first F, the last the outputs of an instance) and `activation`.
        arrays: of layer k `weight_k`, (inputs, outputs), `bias_k`, and but for the first and the last
            `agent_k` and `gpu_k`, (inputs, outputs).
        columns: names of the F columns that it reads, in order.

    Returns:
        From rows, (B, N, K, F), to outputs, (B, N, K, A).

    Raises:
        ValueError: the layers do not fit the columns, or the arrays do not fit the layers.
    """
    layers = widths_of(settings, len(columns), f"{len(columns)} columns")
    expected: dict[str, tuple[int, ...]] = {}
    for k, (inputs, outputs) in enumerate(pairwise(layers)):
        expected |= {f"bias_{k}": (outputs,), f"weight_{k}": (inputs, outputs)}
        if 0 < k < len(layers) - 2:
            expected |= {f"agent_{k}": (inputs, outputs), f"gpu_{k}": (inputs, outputs)}
    weights = joined(arrays, expected).astype(np.float64)
    widths, chosen = np.array(layers), [CLUSTER_COLUMNS.index(name) for name in columns]

    def network(rows: AnyArray) -> Array:
        batch, agents, gpus, _ = rows.shape
        outputs = np.empty((batch, agents, gpus, layers[-1]))
        # Made anew at each call, so that threads can share an allocator.
        scratch = np.empty((2 * agents * gpus + 2 * (agents + gpus), max(layers)))
        _exchangeable(np.ascontiguousarray(rows[..., chosen]), widths, weights, scratch, outputs)
        return outputs

    return network


@compiled
def _highest(values: Array, most: Array, first: int, count: int, stride: int, width: int) -> None:
    """Write the greatest of `count` rows of values, each `stride` after the last."""
    for j in range(width):
        most[j] = values[first, j]
    for n in range(1, count):
        for j in range(width):
            most[j] = max(most[j], values[first + n * stride, j])


@compiled
def _exchangeable(rows: AnyArray, widths: AnyArray, weights: Array, scratch: Array, outputs: Array) -> None:
    """Write the outputs, (B, N, K, A), of rows, (B, N, K, F).

    `scratch` is (2 N K + 2 (N + K), widest layer): values and results of instances, then the maxima of
    agents and of GPUs and what these add.
    """
    agents, gpus, last = rows.shape[1], rows.shape[2], widths.shape[0] - 2
    count, lines = agents * gpus, agents + gpus
    most, context = scratch[2 * count : 2 * count + lines], scratch[2 * count + lines :]
    for b in range(rows.shape[0]):
        values, results = scratch[:count], scratch[count : 2 * count]
        for s in range(count):
            for j in range(widths[0]):
                values[s, j] = rows[b, s // gpus, s % gpus, j]
        start = 0
        for k in range(last + 1):
            inputs, width = widths[k], widths[k + 1]
            bias, own = weights[start : start + width], weights[start + width :]
            start += width + inputs * width
            for line in range(lines if 0 < k < last else 0):
                for j in range(width):
                    context[line, j] = 0.0
                if line < agents:
                    _highest(values, most[line], line * gpus, gpus, 1, inputs)
                    accumulate(most[line], inputs, weights[start:], context[line], width)
                else:
                    _highest(values, most[line], line - agents, agents, gpus, inputs)
                    accumulate(most[line], inputs, weights[start + inputs * width :], context[line], width)
            if 0 < k < last:
                start += 2 * inputs * width
            for s in range(count):
                for j in range(width):
                    results[s, j] = bias[j]
                    if 0 < k < last:
                        results[s, j] += context[s // gpus, j] + context[agents + s % gpus, j]
                accumulate(values[s], inputs, own, results[s], width)
                if k < last:
                    tanh(results[s, :width])
            values, results = results, values
        for s in range(count):
            for j in range(outputs.shape[3]):
                outputs[b, s // gpus, s % gpus, j] = values[s, j]


class Held(Generic[T]):
    """What is decided from time to time, and holds in between."""

    def __init__(self, period_s: float) -> None:
        """Hold nothing yet; `period_s` [s] is the time between two decisions."""
        self._period_s, self._steps, self._shape = period_s, 0, ()
        self.decided: T | None = None

    def steps(self, dt: float) -> int:
        """Steps of `dt` [s] for which a decision holds, at least one."""
        return max(1, round(self._period_s / dt))

    def __call__(self, view: ClusterView, decide: Callable[[], T]) -> T:
        """What `decide` gives where that is due, or gave last; takes one step of a view of (B, …) arrays."""
        if self.decided is None or self._shape != view.share.shape:
            self._steps, self._shape = 0, view.share.shape
        if self.decided is None or self._steps % self.steps(view.agents.dt) == 0:
            self.decided = decide()
        self._steps += 1
        return self.decided


class PlacedCorrections:
    """Fractions of each GPU after bounded corrections of where agents stand and of what is planned there.

    Below a placement by demand receding-horizon control splits each GPU in every step. Every `period_s` the
    placement and what corrects the two are revised. The outputs of an instance, clipped to ±bound, are
    `OUTPUTS`; where all are zero the two are left as they are. It remembers both: every rollout needs one of
    its own.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Read `bound`, `period_s`, `base` (`Constants`) and, if given, `placement` (`DemandWeights`)."""
        self._bound, period_s = number(settings, "bound"), number(settings, "period_s")
        self._constants = constants_from(settings["base"])
        placement = settings.get("placement", {})
        self._weights = DemandWeights(**{name: number(placement, name) for name in placement})
        sound = np.isfinite(self._weights).all()
        if not (0 < self._bound < math.inf and 0 < period_s < math.inf and sound):
            raise ValueError("bound and period_s must be above 0, they and the constants of placement finite")
        self.held: Held[tuple[Array, Array]] = Held(period_s)

    def __call__(self, view: ClusterView, outputs: Callable[[], Array]) -> Array:
        """Fractions of each GPU, (B, N, K), of a view of (B, …) arrays; takes one step.

        `outputs` says what the network writes, (B, N, K, A), where that is due.
        """
        part, logarithms = self.held(view, lambda: self._revised(view, outputs()))
        return split(lambda rows: plan(rows, self._constants, logarithms), view, part)

    def _revised(self, view: ClusterView, outputs: Array) -> tuple[Array, Array]:
        """Parts of agents' work for each GPU, (B, N, K), and corrections of its plan, (B K, N, A − 1)."""
        given = outputs.clip(-self._bound, self._bound)
        batch, agents, gpus = view.share.shape
        logarithms = given[..., :-1].swapaxes(1, 2).reshape(batch * gpus, agents, -1)
        placed = by_demand(view, self._weights, ATTRACTION * given[..., -1])
        return parts_of(view, placed), np.ascontiguousarray(logarithms)


class ClusterDecider:
    """What decides for a cluster by a network and the corrections that its outputs stand for."""

    def __init__(
        self, settings: Mapping[str, Any], arrays: Mapping[str, AnyArray], columns: Sequence[str]
    ) -> None:
        """Hold a network and its corrections.

        Args:
            settings: of `exchangeable`, and as `actions` those of `PlacedCorrections`.
            arrays: of the network.
            columns: names of the columns that it reads, in order.

        Raises:
            KeyError: a setting is missing.
            ValueError: the parts do not fit each other.
        """
        self._parts = settings, arrays, columns
        self._network = exchangeable(settings, arrays, columns)
        self._act = PlacedCorrections(settings["actions"])
        if settings["layers"][-1] != len(OUTPUTS):
            raise ValueError(f"an instance needs {len(OUTPUTS)} outputs, got {settings['layers'][-1]}")

    def fresh(self) -> "ClusterDecider":
        """The same decider, remembering no placement."""
        return ClusterDecider(*self._parts)

    def __call__(self, view: ClusterView) -> Array:
        """Fractions of each GPU, shaped as `view.share`; takes one step."""
        rows = batched(view)
        return self._act(rows, lambda: self._network(instance_rows(rows))).reshape(view.share.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return ClusterDecider, self._parts

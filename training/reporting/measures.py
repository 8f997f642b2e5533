"""What tables, figures and TensorBoard show of an evaluation, and in which units."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpualloc_env.metrics import Metrics
from gpualloc_env.scenario.scenario import Scenario
from training.evaluation.evaluate import Evaluation
from training.evaluation.statistics import Estimate, interval

UNDEFINED = "–"
"""In tables, where a metric has no value: no request was served, say."""


@dataclass(frozen=True)
class Measure:
    """A metric of episodes as people read it."""

    metric: str
    name: str
    unit: str
    scale: float = 1.0
    """From the metric's unit to this one."""
    form: str = ".3f"
    higher_is_better: bool = False

    @property
    def title(self) -> str:
        """Name and unit."""
        return f"{self.name} [{self.unit}]"

    @property
    def direction(self) -> str:
        """Which values are better, for names of columns that are sorted."""
        return "higher is better" if self.higher_is_better else "lower is better"

    def estimate(self, evaluation: Evaluation) -> Estimate:
        """Mean over the episodes and interval."""
        values = [self.scale * episode[self.metric] for episode in evaluation.metrics]
        return interval(values, varies=evaluation.scenario.varies)


LATENCY = Measure("latency_mean_s", "latency mean", "s")
P95 = Measure("latency_p95_s", "latency p95", "s")
SLO = Measure("slo_attainment", "within SLO", "%", 100.0, ".1f", higher_is_better=True)
SERVED = Measure("throughput_rps", "served", "req/s", form=".2f", higher_is_better=True)
COST = Measure("cost_usd", "cost", "$", form=".4f")
TASK = Measure("task_latency_mean_s", "task mean", "s", form=".2f")
TASK_P95 = Measure("task_latency_p95_s", "task p95", "s", form=".2f")
TASK_SLO = Measure("task_slo_attainment", "tasks in SLO", "%", 100.0, ".1f", higher_is_better=True)
TTFT = Measure("ttft_p95_s", "TTFT p95", "s")
TPOT = Measure("tpot_mean_s", "TPOT mean", "ms/token", 1000.0, ".1f")


MET = (
    Measure("hot_calls", "hot calls", "%", 100.0, ".1f", higher_is_better=True),
    Measure("woken_calls", "woken calls", "%", 100.0, ".1f"),
    Measure("cold_calls", "cold calls", "%", 100.0, ".2f"),
)
"""What the calls of a cluster met: an instance that was loaded, was waking or was starting cold."""
STOOD = (
    Measure("cold_starts", "cold starts", "an episode", form=".1f"),
    Measure("wakes", "wakes", "an episode", form=".1f"),
    Measure("evictions", "evictions", "an episode", form=".1f"),
    Measure("refused", "refused", "an episode", form=".1f"),
    Measure("hops", "hops", "an episode", form=".1f"),
    Measure("gpu_memory_held", "GPU memory held", "%", 100.0, ".1f"),
    Measure("host_memory_held", "host memory held", "%", 100.0, ".1f"),
)
"""What became of the instances of a cluster, and the memory that they took."""


def number(value: float, form: str) -> str:
    """As a table shows it: a number, or a dash."""
    return UNDEFINED if np.isnan(value) else f"{value:{form}}"


def cells(shown: Sequence[Measure], metrics: Metrics) -> dict[str, str]:
    """Means of metrics as a table shows them, by the headers of their columns."""
    return {
        f"{each.name}\n[{each.unit}]": number(each.scale * metrics[each.metric], each.form) for each in shown
    }


def measures(scenario: Scenario) -> tuple[Measure, ...]:
    """What decides besides J: of requests, of calls to language models, or of tasks of several calls."""
    if scenario.service == "fluid":
        return LATENCY, P95, SLO, SERVED, COST
    if scenario.objective.task > 0:
        return TASK, TASK_P95, TASK_SLO, TTFT, TPOT, COST
    return P95, TTFT, TPOT, SLO, SERVED, COST


def headline_latency(scenario: Scenario) -> Measure:
    """The latency that is weighed against the cost."""
    return TASK if scenario.service == "requests" and scenario.objective.task > 0 else LATENCY

"""Where the fluid model and a request-by-request simulation part: how far, and from what size or load on."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from training.evaluation.statistics import Estimate
from training.validation.workflow_network import TASK_SERVICE_S

SHORTEST_STEP = 0.01


class Case(NamedTuple):
    """One setting of the workflow in which the two models are compared."""

    burst: int  # tasks that arrive together
    load: float  # ρ of every agent; 0 for one burst alone
    dt: float  # [s] the fluid's step
    tasks: int  # in each replication
    replications: int


class Parting(NamedTuple):
    """Mean time of a task in the workflow, fluid beside Ciw, on the same arrivals."""

    case: Case
    requests: Estimate  # [s] Ciw
    fluid: Estimate  # [s]
    gap: Estimate  # (fluid − Ciw) / Ciw
    missing: float  # Ciw − fluid, in service times of a task over all its visits


def burst_cases(effort: float = 1.0) -> list[Case]:
    """Bursts of different sizes alone and under load, in steps that are short beside them."""
    sizes = {1: (40, 500), 10: (24, 1000), 100: (16, 2000), 1000: (8, 4000)}
    cases: list[Case] = []
    for burst, (replications, tasks) in sizes.items():
        dt = SHORTEST_STEP * burst**0.5
        cases.append(Case(burst, 0.0, dt, burst, max(8, round(effort * 400 / burst))))
        repeated = max(4, round(effort * replications))
        cases += [Case(burst, load, dt, tasks, repeated) for load in (0.5, 0.7, 0.9)]
    return cases


def step_cases(effort: float = 1.0) -> list[Case]:
    """Single tasks at load 0.8 in steps of different lengths."""
    replications = max(4, round(40 * effort))
    return [Case(1, 0.8, dt, 500, replications) for dt in (SHORTEST_STEP, 0.1, 1.0, 10.0)]


def burst_rows(partings: Sequence[Parting]) -> list[dict[str, str]]:
    """A row for each size of burst, a column for each load."""
    cells = {(row.case.burst, row.case.load): row for row in partings}
    loads = sorted({row.case.load for row in partings})
    return [
        {
            "tasks in a burst": str(burst),
            **{(f"ρ = {load}" if load else "one burst alone"): _cell(cells[burst, load]) for load in loads},
        }
        for burst in sorted({row.case.burst for row in partings})
    ]


def step_rows(partings: Sequence[Parting]) -> list[dict[str, str]]:
    """A row for each length of the step."""
    return [
        {
            "step / service time of a task": f"{row.case.dt / TASK_SERVICE_S:.2g}",
            "Ciw [s]": f"{row.requests.mean:.2f}",
            "fluid [s]": f"{row.fluid.mean:.2f}",
            "fluid against Ciw": _cell(row),
        }
        for row in partings
    ]


def parting_record(row: Parting) -> Mapping[str, Any]:
    """What `validation.json` holds of a parting."""
    return {
        "burst": row.case.burst,
        "load": row.case.load,
        "dt": row.case.dt,
        "ciw_s": row.requests.record(),
        "fluid_s": row.fluid.record(),
        "gap": row.gap.record(),
        "missing_service_times": row.missing,
    }


def _cell(row: Parting) -> str:
    half_width = 50 * (row.gap.high - row.gap.low)
    return f"{100 * row.gap.mean:+.1f} % ± {half_width:.1f}, {row.missing:+.1f}"

"""Where the fluid model and a request-by-request simulation part: how far, and from what size or load on."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from training.checks import record
from training.report import Estimate


class Parting(NamedTuple):
    """Mean time of a task in the workflow, fluid beside Ciw, on the same arrivals."""

    burst: int  # tasks that arrive together
    load: float  # ρ of every agent; 0 for one burst alone
    dt: float  # [s] the fluid's step
    requests: Estimate  # [s] Ciw
    fluid: Estimate  # [s]
    gap: Estimate  # (fluid − Ciw) / Ciw
    missing: float  # Ciw − fluid, in service times of a task over all its visits


def burst_rows(partings: Sequence[Parting]) -> list[dict[str, str]]:
    """A row for each size of burst, a column for each load."""
    cells = {(row.burst, row.load): row for row in partings}
    loads = sorted({row.load for row in partings})
    return [
        {
            "tasks in a burst": str(burst),
            **{(f"ρ = {load}" if load else "one burst alone"): _cell(cells[burst, load]) for load in loads},
        }
        for burst in sorted({row.burst for row in partings})
    ]


def step_rows(partings: Sequence[Parting], service: float) -> list[dict[str, str]]:
    """A row for each length of the step; `service` is a task's time in service [s]."""
    return [
        {
            "step / service time of a task": f"{row.dt / service:.2g}",
            "Ciw [s]": f"{row.requests.mean:.2f}",
            "fluid [s]": f"{row.fluid.mean:.2f}",
            "fluid against Ciw": _cell(row),
        }
        for row in partings
    ]


def parting_record(row: Parting) -> Mapping[str, Any]:
    """What `validation.json` holds of a parting."""
    return {
        "burst": row.burst,
        "load": row.load,
        "dt": row.dt,
        "ciw_s": record(row.requests),
        "fluid_s": record(row.fluid),
        "gap": record(row.gap),
        "missing_service_times": row.missing,
    }


def _cell(row: Parting) -> str:
    half_width = 50 * (row.gap.high - row.gap.low)
    return f"{100 * row.gap.mean:+.1f} % ± {half_width:.1f}, {row.missing:+.1f}"

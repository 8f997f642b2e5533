"""A check: what was measured beside what it should be, and whether the two agree."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gpualloc_env.simulation.state import Array
from training.evaluation.statistics import Estimate, interval

EXACT = 1e-9
"""Tolerance where the fluid is exact and only rounding may differ."""


@dataclass(frozen=True)
class Check:
    """One number of the fluid simulator held against theory or against another simulator."""

    name: str
    against: str
    """Where the expected value comes from."""
    unit: str
    expected: float
    measured: Estimate
    difference: Estimate
    """Measured less expected over the scale, which is the expected value unless that is zero."""
    tolerance: float
    """Largest relative difference, and largest width of its interval, that passes."""

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance, and known well enough to say so."""
        width = self.difference.high - self.difference.low
        return bool(abs(self.difference.mean) <= self.tolerance and width <= self.tolerance)


def against_theory(
    name: str,
    theory: str,
    unit: str,
    expected: float,
    measured: ArrayLike,
    tolerance: float,
    scale: float | None = None,
) -> Check:
    """Hold measurements, one for each replication, against a number that is known.

    A single one is no sample: it is taken where chance plays no part.
    """
    mean = interval(measured, varies=np.size(measured) > 1)
    scale = abs(expected) if scale is None else scale
    difference = Estimate(*((value - expected) / scale for value in mean))
    return Check(name, theory, unit, expected, mean, difference, tolerance)


def against_simulator(
    name: str, simulator: str, unit: str, expected: ArrayLike, measured: ArrayLike, tolerance: float
) -> Check:
    """Hold measurements against another simulator's on the same arrivals, replication by replication.

    Both met the same arrivals, so what these do to both cancels in the difference.
    """
    reference, fluid = np.asarray(expected, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    mean = float(reference.mean())
    return Check(
        name, simulator, unit, mean, interval(fluid), interval((fluid - reference) / mean), tolerance
    )


def controlled(values: Array, control: ArrayLike, mean: float) -> Array:
    """Values less what a control variate of known mean explains of them, (R,), with the fitted slope."""
    deviation = np.asarray(control, dtype=np.float64) - mean
    variance = deviation.var(ddof=1)
    slope = np.cov(values, deviation)[0, 1] / variance if variance > 0 else 0.0
    return values - slope * deviation


def check_rows(checks: Sequence[Check]) -> list[dict[str, str]]:
    """Rows of the printed table, one for each check."""
    return [
        {
            "check": check.name,
            "against": check.against,
            "expected": f"{_number(check.expected)} {check.unit}".strip(),
            "measured\n[95 % interval]": _interval(check.measured),
            "difference": _percent(check.difference.mean, sign="+"),
            "tolerance": _percent(check.tolerance),
            "verdict": "pass" if check.passed else "FAIL",
        }
        for check in checks
    ]


def check_record(check: Check) -> Mapping[str, Any]:
    """What `validation.json` holds of a check."""
    return {
        "name": check.name,
        "against": check.against,
        "unit": check.unit,
        "expected": check.expected,
        "measured": check.measured.record(),
        "relative_difference": check.difference.record(),
        "tolerance": check.tolerance,
        "passed": check.passed,
    }


def _number(value: float) -> str:
    return f"{value:.4g}" if value == 0 or abs(value) < 1e4 else f"{value:.6g}"


def _interval(value: Estimate) -> str:
    mean, low, high = (_number(bound) for bound in value)
    return mean if low == high else f"{mean} [{low}, {high}]"


def _percent(value: float, sign: str = "") -> str:
    """Per cent, or a power of ten where it is rounding."""
    if value == 0:
        return "0"
    if abs(value) < 5e-5:
        return f"{'<' if sign else ''}1e{math.ceil(math.log10(abs(value)))}"
    return f"{100 * value:{sign}.2g} %" if abs(value) >= 0.01 else f"{100 * value:{sign}.2f} %"

"""What a server of calls needs, fitted to measured times of forward passes and of starts."""

import csv
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpualloc_env.simulation.state import Array

MEASURED = Path(__file__).parent / "measured"
MOST_DECODED = 64  # tokens of a pass up to which it is one of decoding: one token of each call
STARTS = ("cold_start", "load_weights", "wake_from_host", "mig_create", "mig_destroy")
PREFILL = (1024, 8192)  # tokens of a pass of prefill


class Line(NamedTuple):
    """A straight line through measured times by least squares."""

    intercept: float
    slope: float
    residual: float  # largest distance of a measured time from it


class Passes(NamedTuple):
    """Measured times of one model's forward passes on one GPU."""

    gpu: str
    model: str  # as its publisher calls it
    tokens: Array  # (n,)
    seconds: Array  # (n,)


class Fitted(NamedTuple):
    """The times of one model on one GPU."""

    gpu: str
    model: str
    decode: Line  # [s] over the calls of the batch
    prefill: Line  # [s] over the tokens of the prompt


def read_passes(path: Path = MEASURED / "llm_iterations.csv") -> list[Passes]:
    """The measured passes by GPU and model, in the order of the file."""
    rows: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            point = float(row["tokens"]), float(row["milliseconds"]) / 1000.0
            rows[row["device"], row["model"]].append(point)
    return [Passes(gpu, model, *np.array(points).T) for (gpu, model), points in rows.items()]


def line(x: Array, y: Array) -> Line:
    """The line through points by least squares."""
    slope, intercept = np.polyfit(x, y, 1)
    return Line(float(intercept), float(slope), float(np.abs(intercept + slope * x - y).max()))


def fit(passes: Passes) -> Fitted:
    """Decoding: a line over at most 64 tokens. Prefill: a line over 1,024 to 8,192 tokens."""
    tokens, seconds = passes.tokens, passes.seconds
    few, many = tokens <= MOST_DECODED, (tokens >= PREFILL[0]) & (tokens <= PREFILL[1])
    return Fitted(
        passes.gpu,
        passes.model,
        decode=line(tokens[few], seconds[few]),
        prefill=line(tokens[many], seconds[many]),
    )


def fit_starts(path: Path = MEASURED / "residency.csv") -> dict[str, Line]:
    """Seconds of each quantity in `STARTS` over billions of parameters; means of what no model is part of."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["quantity"] in STARTS:
                size = float(row["billions_of_parameters"] or 0)
                points[row["quantity"]].append((size, float(row["seconds"])))
    return {quantity: _start(*np.array(pairs).T) for quantity, pairs in points.items()}


def _start(billions: Array, seconds: Array) -> Line:
    if billions.any():
        return line(billions, seconds)
    mean = float(seconds.mean())
    return Line(mean, 0.0, float(np.abs(seconds - mean).max()))

"""Settings and weights of exported networks, and what their layers do with them."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.state import AnyArray


def number(settings: Mapping[str, Any], name: str) -> float:
    """A setting that is a number.

    Raises:
        ValueError: it is none.
    """
    value = settings[name]
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} must be a number, got {value!r:.60}")
    return float(value)


def widths_of(settings: Mapping[str, Any], inputs: int, meaning: str) -> tuple[int, ...]:
    """The widths of the layers, the first of which is that of the inputs, whose `meaning` an error gives.

    Raises:
        ValueError: they are no such widths, or the activation is another.
    """
    given: Any = settings["layers"]
    layers: tuple[Any, ...] = tuple(given) if isinstance(given, list | tuple) else ()  # pyright: ignore
    if not layers or not all(isinstance(width, int) for width in layers):
        raise ValueError(f"layers must be a list of widths, got {given!r:.60}")
    if len(layers) < 2 or min(layers) < 1 or layers[0] != inputs:
        raise ValueError(f"layers {layers} must begin with {meaning}")
    if settings.get("activation") != "tanh":
        raise ValueError(f"activation must be 'tanh', got {settings.get('activation')!r}")
    return layers


def joined(arrays: Mapping[str, AnyArray], expected: Mapping[str, tuple[int, ...]]) -> AnyArray:
    """The arrays in the expected order as one, after a look at their names, types, shapes and numbers."""
    if set(arrays) != set(expected):
        raise ValueError(f"the arrays must be {', '.join(expected)}, got {', '.join(arrays)}")
    for name, wanted in expected.items():
        if arrays[name].dtype != np.float32 or arrays[name].shape != wanted:
            raise ValueError(
                f"{name} must be float32 of shape {wanted}, "
                f"got {arrays[name].dtype} of shape {arrays[name].shape}"
            )
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} is not finite")
    return np.concatenate([arrays[name].ravel() for name in expected])


@compiled
def accumulate(values: AnyArray, inputs: int, weights: AnyArray, results: AnyArray, outputs: int) -> None:
    """Add values · weights, a flat (inputs, outputs), to the results."""
    for i in range(inputs):
        value, row = values[i], weights[i * outputs : (i + 1) * outputs]
        # Along the outputs, so that the sums need not be reordered to run side by side.
        for j in range(outputs):
            results[j] += value * row[j]


@inlined
def within(value: float, bound: float) -> float:
    """The value held to ±bound; unlike `min` and `max` it lets what is not a number pass."""
    return bound if value > bound else (-bound if value < -bound else value)


_SERIES = tuple(1.0 / math.factorial(k) for k in range(10, 0, -1))  # of e^y − 1, from the highest power


@compiled
def tanh(values: AnyArray) -> None:
    """Replace numbers by their hyperbolic tangents, to within 10⁻¹⁵, several in one vector instruction.

    With e(y) = e^y − 1, tanh x = e(2x) / (e(2x) + 2) and e(2y) = e(y) (e(y) + 2): seven doublings lead
    from |y| ≤ 5/16, where ten terms of the series are exact to the last bit, to |2x| ≤ 40.
    """
    for j in range(values.shape[0]):
        y = within(float(values[j]), 20.0) / 64.0
        e = 0.0
        for coefficient in _SERIES:
            e = (e + coefficient) * y
        for _ in range(7):
            e *= e + 2.0
        values[j] = e / (e + 2.0)

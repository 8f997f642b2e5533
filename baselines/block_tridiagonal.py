"""Cholesky factors of a block tridiagonal matrix: T blocks of (N, N) in O(T N³)."""

import numpy as np
from numba import njit

from gpualloc_env.state import AnyArray

_compiled = njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})


@_compiled
def _factor(matrix: AnyArray) -> None:
    """Cholesky factor of a positive definite matrix, (n, n), written into its lower triangle."""
    for i in range(matrix.shape[0]):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = np.sqrt(max(total, 1e-300)) if i == j else total / matrix[j, j]


@_compiled
def _forward(factor: AnyArray, vector: AnyArray) -> None:
    """Solve L z = vector in place."""
    for i in range(vector.shape[0]):
        total = vector[i]
        for k in range(i):
            total -= factor[i, k] * vector[k]
        vector[i] = total / factor[i, i]


@_compiled
def _backward(factor: AnyArray, vector: AnyArray) -> None:
    """Solve Lᵀ z = vector in place."""
    for i in range(vector.shape[0] - 1, -1, -1):
        total = vector[i]
        for k in range(i + 1, vector.shape[0]):
            total -= factor[k, i] * vector[k]
        vector[i] = total / factor[i, i]


@_compiled
def factor_blocks(diagonal: AnyArray, below: AnyArray) -> None:
    """Factor a block tridiagonal matrix in place: `diagonal`, (T, N, N), and `below`, (T − 1, N, N)."""
    steps, count = diagonal.shape[0], diagonal.shape[1]
    for t in range(steps):
        if t > 0:
            # Each row of the block below becomes L⁻¹ of itself.
            for i in range(count):
                _forward(diagonal[t - 1], below[t - 1, i])
            block = below[t - 1]
            for i in range(count):
                for j in range(i + 1):
                    total = 0.0
                    for k in range(count):
                        total += block[i, k] * block[j, k]
                    diagonal[t, i, j] -= total
        _factor(diagonal[t])


@_compiled
def solve_blocks(diagonal: AnyArray, below: AnyArray, vector: AnyArray) -> None:
    """Solve with the factors of `factor_blocks`, in place, (T, N)."""
    steps, count = vector.shape
    for t in range(steps):
        if t > 0:
            for i in range(count):
                for k in range(count):
                    vector[t, i] -= below[t - 1, i, k] * vector[t - 1, k]
        _forward(diagonal[t], vector[t])
    for t in range(steps - 1, -1, -1):
        if t < steps - 1:
            for i in range(count):
                for k in range(count):
                    vector[t, k] -= below[t, i, k] * vector[t + 1, i]
        _backward(diagonal[t], vector[t])

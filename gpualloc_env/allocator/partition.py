"""From shares to what NVIDIA's drivers take: percentages of MPS, and slices of MIG."""

import math
from collections.abc import Mapping

MIG_PROFILES = {7: 8, 4: 4, 3: 4, 2: 2, 1: 1}
"""Eighths of the memory by compute slices, of 7: `7g`, `4g`, `3g`, `2g` and `1g` of an A100 or H100."""
_ROUNDING = 1e-9
_ROUNDING_OF_A_SUM = 1e-6  # of shares in single precision


def mps_percentages(shares: Mapping[str, float]) -> dict[str, int]:
    """`CUDA_MPS_ACTIVE_THREAD_PERCENTAGE` of each agent on one GPU, by its share of it.

    Rounded down; a share above 0 gets at least 1 %, at the expense of the largest where the sum would
    exceed 100. An agent without a share has no entry: its server should not be running, since MPS has no
    percentage of 0.

    Raises:
        ValueError: no mapping by the agents' names, a share is not a number from 0 to 1, their sum exceeds 1,
            or more than a hundred agents have one.
    """
    _check(shares)
    wanted = {name: 100 * share for name, share in shares.items() if share > 0}
    if len(wanted) > 100:
        raise ValueError(f"a GPU has 100 percent, and {len(wanted)} agents have a share; use more GPUs")
    percentages = {name: max(1, math.floor(want + _ROUNDING)) for name, want in wanted.items()}
    while sum(percentages.values()) > 100:
        percentages[max(percentages, key=percentages.__getitem__)] -= 1
    return percentages


def mig_slices(shares: Mapping[str, float]) -> dict[str, int]:
    """Compute slices, of 7, that each agent's instance should have on one GPU, by its share of it.

    The largest profile that the share pays for, and at least one slice for a share above 0. What is left
    then goes to those that are furthest below their shares. An agent without a share has no entry.

    Raises:
        ValueError: no mapping by the agents' names, a share is not a number from 0 to 1, their sum exceeds 1,
            or more than seven agents have one, which no GPU can be cut into.
    """
    _check(shares)
    wanted = {name: 7 * share for name, share in shares.items() if share > 0}
    if len(wanted) > 7:
        raise ValueError(f"a GPU has 7 slices, and {len(wanted)} agents have a share; use MPS, or more GPUs")
    slices = {name: _profile(want + _ROUNDING) for name, want in wanted.items()}
    while not _fits(slices):
        # Minima of one slice, or the memory of `3g`, have taken more than there is.
        above = max(slices, key=lambda name: (slices[name] > 1, slices[name] - wanted[name]))
        slices[above] = _profile(slices[above] - 1)
    for name in sorted(wanted, key=lambda name: slices[name] - wanted[name]):
        sizes = (size for size in MIG_PROFILES if slices[name] < size < wanted[name] + 1 - _ROUNDING)
        slices[name] = next((size for size in sizes if _fits({**slices, name: size})), slices[name])
    return slices


def _check(shares: Mapping[str, float]) -> None:
    if not isinstance(shares, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(
            f"shares must be a mapping by the agents' names, such as {{'router': 0.5}}, got {shares!r:.80}"
        )
    for name, share in shares.items():
        if not 0.0 <= share <= 1.0 + _ROUNDING:
            raise ValueError(f"the share of {name!r} must be from 0 to 1, got {share!r}")
    total = math.fsum(shares.values())
    if total > 1.0 + _ROUNDING_OF_A_SUM:
        raise ValueError(f"the shares of one GPU sum to {total:g}; scale them to at most 1")


def _profile(slices: float) -> int:
    """The largest profile of at most so many slices, of one at least."""
    return next((size for size in MIG_PROFILES if size <= slices), 1)


def _fits(slices: Mapping[str, int]) -> bool:
    memory = sum(MIG_PROFILES[size] for size in slices.values())
    return sum(slices.values()) <= 7 and memory <= 8

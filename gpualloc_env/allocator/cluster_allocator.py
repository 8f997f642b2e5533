"""`ClusterAllocator`: a trained allocator of clusters from a small file, with guardrails."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpualloc_env.allocator.allocator import Fallback
from gpualloc_env.allocator.cluster import ClusterDecider
from gpualloc_env.allocator.file import AllocatorError, Manifest, read
from gpualloc_env.allocator.levels import algorithm_1_by_levels, batched, parts_of
from gpualloc_env.simulation.observation import ARRAY_FIELDS, SETTING_FIELDS
from gpualloc_env.simulation.placement import ROWS, ClusterView
from gpualloc_env.simulation.state import AnyArray, Array

_LOG = logging.getLogger(__name__)
# What never held a share has been idle for ever, and a model may be kept for ever.
_ENDLESS = ("idle", "keep_alive_s")


class ClusterAllocator:
    """Decides which fraction of each GPU of a cluster each agent should hold, within guardrails.

    Whatever it is shown, its shares are finite, in [0, 1], and those of each GPU sum to at most 1 (to within
    rounding). Where the view of an environment, or what is decided on it, is not finite, or a step takes no
    time, Algorithm 1 splits each GPU among its residents; where what that needs is unusable too, all agents
    get equal shares. The first fallback of each kind is logged as a warning, all are counted. Any numbers of
    agents and GPUs are served.

    It remembers where agents stand: every cluster that is decided for needs an instance of its own, which
    `fresh` makes, and every call takes one step of it.
    """

    def __init__(self, manifest: Manifest, decider: ClusterDecider) -> None:
        """Hold a network; `load` reads one from a file."""
        self.manifest, self._decider = manifest, decider
        self.decisions = 0
        """Decisions taken, one for each environment of a batch."""
        self.fallbacks: Counter[Fallback] = Counter()
        """How many of them the network did not take, and why."""

    @classmethod
    def load(cls, path: str | Path) -> "ClusterAllocator":
        """Read an allocator of clusters that `gpualloc export` wrote, an .npz.

        Raises:
            AllocatorError: the file is damaged, something else or of another version, or decides for one
                pool of GPUs.
            OSError: it cannot be read.
        """
        manifest, decider = read(path)
        if not isinstance(decider, ClusterDecider):
            raise AllocatorError(f"{path} decides for one pool of GPUs; read it with gpualloc_env.Allocator")
        return cls(manifest, decider)

    def fresh(self) -> "ClusterAllocator":
        """The same allocator, remembering no placement."""
        return ClusterAllocator(self.manifest, self._decider.fresh())

    def __call__(self, view: ClusterView) -> Array:
        """Fractions of each GPU, shaped as `view.share`, (N, K) or (B, N, K); takes one step."""
        rows = batched(view)
        sound = _finite(rows)
        if not sound.all():
            rows = _numbers(rows)
        shares = self._decider(rows).clip(0.0, 1.0)
        self.decisions += len(shares)
        decided = np.isfinite(shares).all(axis=(1, 2))
        bad = ~(sound & decided)
        if bad.any():
            self._recover(rows, shares, sound, bad)
        shares /= np.maximum(1.0, shares.sum(axis=1, keepdims=True))
        return shares.reshape(view.share.shape)

    def _recover(self, rows: ClusterView, shares: Array, sound: AnyArray, bad: AnyArray) -> None:
        """Decide the environments with a problem, (B,) bool, anew, in place, and tell of them."""
        with np.errstate(all="ignore"):
            proposed = algorithm_1_by_levels(rows, parts_of(rows, rows.resident))
        usable = np.isfinite(proposed).all(axis=(1, 2)) & (proposed.sum(axis=(1, 2)) > 0)
        proposed[~usable] = 1.0 / shares.shape[1]
        shares[bad] = proposed[bad].clip(0.0, 1.0)
        for b in np.flatnonzero(bad).tolist():
            reason = "the network's decision" if sound[b] else "the input"
            event = Fallback(f"{reason} is not finite", "Algorithm 1" if usable[b] else "equal shares")
            if event not in self.fallbacks:
                _LOG.warning("%s: decided by %s; the next are only counted", *event)
            self.fallbacks[event] += 1


def _wrong(name: str, values: Any) -> AnyArray:
    """Which numbers of a field are none that it can have."""
    return np.isnan(values) if name in _ENDLESS else ~np.isfinite(values)


def _finite(view: ClusterView) -> AnyArray:
    """Whether all numbers of each environment are finite, and its steps take time, (B,) bool."""
    agents = view.agents
    usable = agents.dt > 0.0 and not any(_wrong(name, getattr(agents, name)) for name in SETTING_FIELDS)
    sound = np.full(len(view.share), usable, np.bool_)
    shown = [(name, getattr(view, name)) for name in ROWS]
    for name, values in (*shown, *zip(ARRAY_FIELDS, agents, strict=False)):
        sound &= ~_wrong(name, values).reshape(len(sound), -1).any(axis=1)
    return sound


def _numbers(view: ClusterView) -> ClusterView:
    """The view with zeros in place of what is wrong, and with a step that takes time."""

    def mended(shown: Any, names: Sequence[str]) -> dict[str, AnyArray]:
        given = ((name, getattr(shown, name)) for name in names)
        return {name: np.where(_wrong(name, values), 0.0, values) for name, values in given}

    settings = {name: float(value) for name, value in mended(view.agents, SETTING_FIELDS).items()}
    settings["dt"] = settings["dt"] if settings["dt"] > 0.0 else 1.0
    agents = view.agents._replace(**mended(view.agents, ARRAY_FIELDS), **settings)
    return view._replace(agents=agents, **mended(view, ROWS))

"""`Allocator`: a trained allocator from a small file, with guardrails, without the training's packages."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from threading import Lock, local
from typing import Any, NamedTuple

import numpy as np

from gpualloc_env.allocator.algorithm_1 import ALGORITHM_1_COLUMNS, algorithm_1, algorithm_1_from_observation
from gpualloc_env.allocator.cluster import ClusterDecider
from gpualloc_env.allocator.decider import Decider
from gpualloc_env.allocator.file import AllocatorError, Manifest, checked_names, in_order, read
from gpualloc_env.allocator.guardrails import (
    BAD_DECISION,
    NOT_FINITE,
    OUT_OF_RANGE,
    SOUND,
    check_observation,
    encode_checked,
    enforce,
)
from gpualloc_env.allocator.receding_horizon import Assumed
from gpualloc_env.allocator.shadow import Shadow
from gpualloc_env.doors import beside, pretrained_file
from gpualloc_env.listing import listed
from gpualloc_env.simulation.observation import (
    AGENT_FIELDS,
    ARRAY_FIELDS,
    OBSERVATION_FEATURES,
    SETTING_FIELDS,
    STATE_FIELDS,
    Packed,
    View,
    observed,
    packed_from,
)
from gpualloc_env.simulation.state import AnyArray, Array

__all__ = ["Allocator", "AllocatorError", "Fallback"]

_LOG = logging.getLogger(__name__)
_REASONS = {
    NOT_FINITE: "the input is not finite",
    OUT_OF_RANGE: "the input is out of range",
    BAD_DECISION: "the network's decision is not finite",
}
_MISSING = "the input is incomplete"
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_FEATURES_OF_THE_FLUID = OBSERVATION_FEATURES.index("running")
_FIELDS_OF_SERVERS = frozenset(
    ("running", "waiting", "prefill", "kv_used", "iteration", "iteration_per_call", "prefill_per_token")
)
_FINITE = float(np.finfo(np.float64).max)
# Of the fields of a view that have other limits than 0 and a finite number.
_LEAST: dict[str, float] = dict.fromkeys(
    ("throughput", "priority", "slo", "dt", "gpus"), float(np.nextafter(0.0, 1.0))
)
_MOST: dict[str, float] = {"keep_alive_s": math.inf}
_PRIORITY, _GPUS = (OBSERVATION_FEATURES.index(name) for name in ("priority", "gpus"))


class Fallback(NamedTuple):
    """Why the network did not decide, and what decided in its place."""

    reason: str
    by: str  # `Algorithm 1` or `equal shares`


class Allocator:
    """Decides which fraction of the platform each agent should hold, within guardrails.

    Whatever it is shown, its shares are finite, in [0, 1], sum to at most 1 (to within rounding)
    and respect `min_shares`. Where a row of the input is incomplete, not finite or out of range,
    Algorithm 1 decides that row from the inflow; where what that needs is unusable too (inflow,
    minimum shares, priorities, G, and of an observation the throughput), or where it gives nothing to
    anybody, since no agent with a minimum share has an inflow, all agents get equal shares. The first
    fallback of each kind is logged as a warning, all are counted. Input of the wrong shape, or under a
    name that there is no field of, is a mistake of the caller: a `ValueError`.

    Threads can share an allocator: the counts are those of all, `last` is each one's own.
    """

    def __init__(
        self,
        manifest: Manifest,
        decider: Decider,
        *,
        agents: Sequence[str] | None = None,
        min_shares: Sequence[float] | Array | None = None,
    ) -> None:
        """Hold a network; `load` reads one from a file.

        Args:
            manifest: for whom the network was trained, and where it comes from.
            decider: from observations, and the view behind them or None, to shares.
            agents: names of those for whom it decides; by default those it was trained for.
            min_shares: fractions of the platform that agents get at least, (N,); none by default.
        """
        self.manifest = manifest
        self.agents = manifest.agents if agents is None else checked_names(agents)
        """For whom it decides, in the order of the rows."""
        count = len(self.agents)
        self.min_shares: Array = np.zeros(count)
        if min_shares is not None:
            self.min_shares = _checked_minimum(min_shares, self.agents)
        self.decisions = 0
        """Decisions taken, one for each row of a batch."""
        self.fallbacks: Counter[Fallback] = Counter()
        """How many of them the network did not take, and why."""
        self._own, self._lock, self._implausible = local(), Lock(), False
        self._decider = decider
        self._shape = (count, len(OBSERVATION_FEATURES))
        # What is compiled at its first call is compiled now, the fallbacks included.
        for observation in (np.full(self._shape, 0.5), np.full(self._shape, np.nan)):
            _, _, shares, problems = self._observed(observation)
            enforce(shares, self.min_shares, problems)
        _, packed, _ = self._packed(dict.fromkeys(View._fields, 1.0))
        self._viewed(packed)
        ones = np.ones((1, count))
        algorithm_1(ones, ones, ones, 1.0)

    @property
    def last(self) -> Fallback | None:
        """The first fallback in this thread's last call; None where the network took every decision."""
        return getattr(self._own, "last", None)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy holds: all but the lock, and what each thread knows for itself."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_own", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _own=local(), _lock=Lock())

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        agents: Sequence[str] | None = None,
        min_shares: Sequence[float] | Array | None = None,
        bill_s: float | None = None,
    ) -> "Allocator":
        """Read an allocator that `gpualloc export` wrote, an .npz.

        Args:
            path: of the file.
            agents: names of those for whom it is to decide, by default those it was trained for; a
                `ppo-shared` or `ppo-residual` allocator serves any others, however many, a `ppo` one those
                alone, in the order of its training.
            min_shares: fractions of the platform that agents get at least, (N,); none by default.
            bill_s: what the bill of the whole platform weighs in the objective, in seconds of a request's
                mean latency: β / (α + θ n), with n calls in a task; `Scenario.bill_s` computes it. Those of
                kind `ppo-mpc-priced` decide better where they know it; others take none.

        Raises:
            AllocatorError: the file is damaged, something else or of another version, it was trained
                for other agents or for clusters, or it cannot be told `bill_s`.
            OSError: it cannot be read.
        """
        agents = None if agents is None else checked_names(agents)
        manifest, decider = read(path, agents, bill_s)
        if isinstance(decider, ClusterDecider):
            raise AllocatorError(f"{path} decides for clusters; read it with gpualloc_env.ClusterAllocator")
        return cls(manifest, decider, agents=agents, min_shares=min_shares)

    @classmethod
    def pretrained(
        cls,
        name: str = "universal",
        *,
        agents: Sequence[str] | None = None,
        min_shares: Sequence[float] | Array | None = None,
        bill_s: float | None = None,
    ) -> "Allocator":
        """One of the allocators that come with the package; `universal` is one file for all of its scenarios.

        On agents or platforms unlike these it can fail: compare it with `receding-horizon` on yours first.

        Args:
            name: `universal`, or one such as `ppo-residual-serverless`, `ppo-residual-serverless/seed-1` or
                `ppo-residual-serverless/seed-1.npz`.
            agents: as in `load`.
            min_shares: as in `load`.
            bill_s: as in `load`.

        Raises:
            AllocatorError: there is none of that name, it was trained for other agents or for clusters, or it
                cannot be told `bill_s`.
        """
        path = pretrained_file(name)
        if path is None:
            folder: Path = beside("training.files").PRETRAINED
            known = ", ".join(sorted(each.name for each in folder.iterdir() if each.is_dir()))
            raise AllocatorError(f"no allocator {name!r} comes with the package; there are {known}")
        return cls.load(path, agents=agents, min_shares=min_shares, bill_s=bill_s)

    def __call__(self, observation: AnyArray) -> Array:
        """Shares for the environment's observation: (N,) for (N, F), (B, N) for (B, N, F).

        Raises:
            ValueError: another shape, or no numbers.
        """
        single, rows, shares, problems = self._observed(observation)
        if self._sound(shares, problems):
            return shares[0] if single else shares

        def fallback(bad: AnyArray) -> Array:
            needed = rows[bad][..., ALGORITHM_1_COLUMNS]
            usable = ((needed >= 0) & (needed <= 1)).all(axis=(1, 2))
            usable &= (rows[bad][..., (_PRIORITY, _GPUS)] > 0).all(axis=(1, 2))
            proposed = np.full((len(bad), self._shape[0]), np.nan)
            proposed[usable] = algorithm_1_from_observation(rows[bad[usable]])
            return proposed

        def describe(b: int) -> str:
            return self._first(rows[b], OBSERVATION_FEATURES, 1.0)

        self._recover(shares, problems, fallback, describe)
        return shares[0] if single else shares

    def decide(self, view: View | Mapping[str, Any]) -> Array:
        """Shares for raw queues, arrivals and shares, shaped as `view.queue`, (N,) or (B, N).

        Args:
            view: a `View`, or a mapping of its fields, in which what there is of each agent can also be a
                mapping by the agents' names. A field that is absent or None counts as missing: Algorithm 1
                decides, and the warning names the field.

        Raises:
            ValueError: an unknown field, or one that does not fit the agents or holds no numbers.
        """
        single, packed, missing = self._packed(view)
        rows, shares, problems = self._viewed(packed)
        if not self._implausible:
            self._doubt(packed)
        if self._sound(shares, problems):
            return shares[0] if single else shares

        def fallback(bad: AnyArray) -> Array:
            inflow, agents = packed.state["inflow"][bad], packed.agents[bad]
            least, rank, gpus = agents["min_share"], agents["priority"], float(packed.settings["gpus"][0])
            usable = np.isfinite([inflow, least, rank]).all(axis=(0, 2))
            usable &= ((inflow >= 0) & (least >= 0) & (rank > 0)).all(axis=1) & (0 < gpus < np.inf)
            proposed = np.full((len(bad), self._shape[0]), np.nan)
            proposed[usable] = algorithm_1(inflow[usable], least[usable], rank[usable], gpus)
            return proposed

        def describe(b: int) -> str:
            if missing:
                return f" (without {', '.join(missing)})"
            return self._first_of_view(packed, b) or self._first(rows[b], OBSERVATION_FEATURES, 1.0)

        self._recover(shares, problems, fallback, describe, incomplete=bool(missing))
        return shares[0] if single else shares

    def assumed(self, view: View | Mapping[str, Any]) -> Assumed | None:
        """What receding-horizon control assumes in deciding; None where it does not decide.

        Args:
            view: as in `decide`, with all its fields; nothing is guarded here.

        Returns:
            `Constants`, (B, C), and the logarithms of `CORRECTIONS`, (B, N, 4), of
            `gpualloc_env.allocator.receding_horizon`; B is 1 where the view has no batch.

        Raises:
            ValueError: a field is missing or unknown, or does not fit the agents.
        """
        _, packed, missing = self._packed(view)
        if missing:
            raise ValueError(f"the view lacks {', '.join(missing)}; give all fields of a View")
        return self._decider.assumed(observed(packed))

    def shadow(self, path: str | Path) -> Shadow:
        """Run beside a live allocator: log to a file of JSON lines what this one would have done."""
        return Shadow(self, path)

    def _observed(self, observation: AnyArray) -> tuple[bool, AnyArray, Array, AnyArray]:
        """Whether the observation stands alone, its rows, the network's shares and each row's problem."""
        given = np.asarray(observation)
        if given.ndim in {2, 3} and given.shape[-1] == _FEATURES_OF_THE_FLUID:
            # Callers from before there were others, which are zeros where a fluid is served.
            missing = self._shape[1] - _FEATURES_OF_THE_FLUID
            given = np.pad(given, [(0, 0)] * (given.ndim - 1) + [(0, missing)])
        if given.shape[-2:] != self._shape or given.ndim > 3:
            raise ValueError(
                f"observation must have shape {self._shape} or (B, {self._shape[0]}, {self._shape[1]}), "
                f"a row for each of {listed(self.agents)}, got shape {given.shape}"
            )
        # A fresh array of one type, for which the kernels are compiled already.
        rows = np.empty((1, *self._shape) if given.ndim == 2 else given.shape, dtype=np.float32)
        if given.dtype is _FLOAT32:
            rows[...] = given
        else:
            with np.errstate(over="ignore"):
                rows[...] = _numbers("observation", given)
        problems = np.zeros(len(rows), dtype=np.int64)
        healthy = check_observation(rows, problems) == 0
        shares = self._decider(rows, None) if healthy else self._partly(rows, problems, None)
        return given.ndim == 2, rows, shares, problems

    def _viewed(self, packed: Packed) -> tuple[AnyArray, Array, AnyArray]:
        """The observations of a packed view, the network's shares and each row's problem."""
        rows = np.empty((*packed.state.shape, len(OBSERVATION_FEATURES)), dtype=np.float32)
        problems = np.empty(len(rows), dtype=np.int64)
        healthy = encode_checked(packed, rows, problems) == 0
        shares = self._decider(rows, packed) if healthy else self._partly(rows, problems, packed)
        return rows, shares, problems

    def _partly(self, rows: AnyArray, problems: AnyArray, packed: Packed | None) -> Array:
        """The decider's shares, (B, N), for sound rows; those with a problem get what is not a number.

        `packed` is the view behind the observations, where one was given.
        """
        sound = problems == SOUND
        shares = np.full(rows.shape[:2], np.nan)
        if sound.any():
            if packed is not None:
                packed = packed._replace(state=packed.state[sound], agents=packed.agents[sound])
            shares[sound] = self._decider(rows[sound], packed)
        return shares

    def _packed(self, view: View | Mapping[str, Any]) -> tuple[bool, Packed, list[str]]:
        """Whether a view stands alone, its numbers, and the fields that it lacks."""
        values: tuple[Any, ...] = view if isinstance(view, View) else self._by_field(view)
        try:
            arrays, settings = np.array(values[: len(ARRAY_FIELDS)]), np.array(values[len(ARRAY_FIELDS) :])
        except (TypeError, ValueError, OverflowError):
            return self._completed(values)
        # float64 is what real numbers of all fields come to, with nothing missing among them.
        if arrays.dtype is _FLOAT64 and settings.dtype is _FLOAT64 and settings.ndim == 1:
            if arrays.ndim == 2 and arrays.shape[1] == self._shape[0]:
                return True, packed_from(arrays[:, None], settings), []
            if arrays.ndim == 3 and arrays.shape[2] == self._shape[0]:
                return False, packed_from(arrays, settings), []
        return self._completed(values)

    def _by_field(self, view: Mapping[str, Any]) -> tuple[Any, ...]:
        """The fields of a mapping in the order of a view, None where one is missing."""
        if not isinstance(view, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"decide takes a View or a mapping of its fields, got {type(view).__name__}")
        for name in view:
            if name not in View._fields:
                close = get_close_matches(str(name), View._fields, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise ValueError(f"unknown field {name!r}; {hint}The fields are {', '.join(View._fields)}")
        return tuple(
            in_order(name, view.get(name, 0.0 if name in _FIELDS_OF_SERVERS else None), self.agents)
            for name in View._fields
        )

    def _doubt(self, packed: Packed) -> None:
        """Warn once of ages that hardly fit the queues, as they are where they come in milliseconds.

        First come, first served: what arrived after the oldest request waits behind it. Not so where calls
        run side by side: a long one lets later ones pass.
        """
        state, dt = packed.state, packed.settings["dt"][0]
        hardly_any = state["queue"] <= 2.0 * (state["inflow"] + state["rate"] * dt)
        slo, fluid = packed.agents["slo"], packed.agents["iteration"] == 0.0
        old = fluid & (slo > 0.0) & (state["oldest_age"] > 50.0 * slo)
        if (hardly_any & old).any():
            self._implausible = True
            b, i = np.argwhere(hardly_any & old)[0]
            age, queue = float(state["oldest_age"][b, i]), float(state["queue"][b, i])
            _LOG.warning(
                "oldest_age of %s is %g s although only %g requests wait; is it in milliseconds?",
                self.agents[int(i)],
                age,
                queue,
            )

    def _completed(self, values: tuple[Any, ...]) -> tuple[bool, Packed, list[str]]:
        """What `_packed` returns, of fields that are to be converted, repeated or refused one by one."""
        missing = [name for name, item in zip(View._fields, values, strict=True) if item is None]
        numbers = [_numbers(name, item) for name, item in zip(View._fields, values, strict=True)]
        shape: tuple[int, ...] = ()
        for k, (name, found) in enumerate(zip(View._fields, numbers, strict=True)):
            if found.shape and (found.shape != shape or k >= len(ARRAY_FIELDS)):
                shape = self._fitting(name, found.shape, shape, per_agent=k < len(ARRAY_FIELDS))
        arrays = np.empty((len(ARRAY_FIELDS), math.prod(shape[:-1]), self._shape[0]))
        for k in range(len(ARRAY_FIELDS)):
            arrays[k] = numbers[k]
        return len(shape) < 2, packed_from(arrays, np.array(numbers[len(ARRAY_FIELDS) :])), missing

    def _fitting(
        self, name: str, found: tuple[int, ...], shape: tuple[int, ...], *, per_agent: bool
    ) -> tuple[int, ...]:
        """The shape of a view's fields, () where none has one yet, if that of another one fits it."""
        count = self._shape[0]
        if not per_agent:
            raise ValueError(f"{name} must have shape (), got {found}")
        if len(found) > 2 or found[-1:] != (count,) or (len(found) == len(shape) == 2):
            raise ValueError(
                f"{name} must have shape ({count},) or (B, {count}) as the others have, a number for each of "
                f"{listed(self.agents)}, got {found}"
            )
        return max(found, shape, key=len)

    def _first_of_view(self, packed: Packed, b: int) -> str:
        """Name the first number of an environment's view that `check_view` refuses, settings first."""
        for name in SETTING_FIELDS:
            value = float(packed.settings[name][0])
            lowest, highest = _LEAST.get(name, 0.0), _MOST.get(name, _FINITE)
            if not lowest <= value <= highest:
                return f" ({name} is {value:g})"
        state, agents = packed.state[b], packed.agents[b]
        seen = [state[name] for name in STATE_FIELDS] + [agents[name] for name in AGENT_FIELDS]
        least = np.array([_LEAST.get(name, 0.0) for name in ARRAY_FIELDS])
        return self._first(np.transpose(seen), ARRAY_FIELDS, _FINITE, least)

    def _first(
        self, values: AnyArray, names: Sequence[str], highest: float, lowest: float | Array = 0.0
    ) -> str:
        """Name the first of an environment's numbers, (N, columns), that is not in these limits."""
        for i, k in np.argwhere(~((values >= lowest) & (values <= highest))):
            return f" ({names[k]} of {self.agents[i]} is {values[i, k]:g})"
        return ""

    def _sound(self, shares: Array, problems: AnyArray) -> bool:
        """Count the decisions, hold the shares, (B, N), to the limits, in place, and say if all are sound."""
        with self._lock:
            self.decisions += len(shares)
        self._own.last = None
        return enforce(shares, self.min_shares, problems) == 0

    def _recover(
        self,
        shares: Array,
        problems: AnyArray,
        fallback: Callable[[AnyArray], Array],
        describe: Callable[[int], str],
        *,
        incomplete: bool = False,
    ) -> None:
        """Decide the rows with a problem anew, in place, and tell of them."""
        bad = np.flatnonzero(problems)
        with np.errstate(all="ignore"):
            proposed = fallback(bad)
        held = ~(np.isfinite(proposed).all(axis=1) & (proposed.sum(axis=1) > 0))
        proposed[held] = 1.0 / self._shape[0]
        enforce(proposed, self.min_shares, np.zeros_like(bad))
        shares[bad] = proposed
        reasons = [_MISSING if incomplete else _REASONS[code] for code in problems[bad].tolist()]
        sources = np.where(held, "equal shares", "Algorithm 1").tolist()
        events = [Fallback(*event) for event in zip(reasons, sources, strict=True)]
        self._own.last = events[0]
        for event, times in Counter(events).items():
            with self._lock:
                known = event in self.fallbacks
                self.fallbacks[event] += times
            if not known:
                first = describe(int(bad[events.index(event)]))
                _LOG.warning("%s%s: decided by %s; the next are only counted", event.reason, first, event.by)


def _numbers(name: str, given: Any) -> AnyArray:
    """Real numbers as float64, None as NaN."""
    numbers: AnyArray = np.asarray(given)
    try:
        # What NumPy would make numbers of in silence: complex ones, texts, dates, what a mask hides.
        if numbers.dtype.kind not in "fiubO" or isinstance(given, np.ma.MaskedArray):
            raise TypeError
        if any(isinstance(item, str | bytes | complex) for item in numbers.flat if numbers.dtype.kind == "O"):
            raise TypeError
        return numbers.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must hold real numbers, got {given!r:.60}") from None


def _checked_minimum(given: Sequence[float] | Array, agents: tuple[str, ...]) -> Array:
    least = _numbers("min_shares", given)
    if least.shape != (len(agents),):
        raise ValueError(
            f"min_shares must hold {len(agents)} fractions, of {listed(agents)}, got shape {least.shape}"
        )
    if not ((least >= 0) & (least <= 1)).all() or least.sum() > 1 + 1e-9:
        raise ValueError(
            f"min_shares must be fractions of the platform that sum to at most 1, got {least.tolist()}"
        )
    return least

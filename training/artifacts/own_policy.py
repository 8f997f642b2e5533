"""A policy of one's own, by the module in which it stands: `my_agent:decide`."""

import re
from collections.abc import Callable

import numpy as np

from gpualloc_env.evaluation import OwnPolicy, begun, sees_view
from gpualloc_env.extensions import module_of_user
from gpualloc_env.listing import shortened
from gpualloc_env.simulation.observation import ARRAY_FIELDS, View, observe
from gpualloc_env.simulation.placement import ROWS, ClusterView
from gpualloc_env.simulation.state import Array


def is_own(name: str) -> bool:
    """Whether a name is one of a module and of something in it."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", name) is not None


class OneByOne:
    """A function of one environment's observation or view as a policy for a batch, anew for each row."""

    def __init__(self, name: str, function: OwnPolicy) -> None:
        """Take a function that `gpualloc_env.evaluate` takes, and its name for messages."""
        self._name, self._function, self.reads_view = name, function, sees_view(function)
        self._rows: list[OwnPolicy] = []

    def fresh(self) -> "OneByOne":
        """The same policy, remembering nothing."""
        return OneByOne(self._name, self._function)

    def __call__(self, view: View | ClusterView) -> Array:
        """Fractions of the platform, or of each GPU of a cluster, shaped as the shares of the view."""
        agents = view if isinstance(view, View) else view.agents
        rows = list(np.ndindex(agents.queue.shape[:-1]))
        self._rows = self._rows or [begun(self._function) for _ in rows]
        shares = np.empty(np.shape(view.share))
        for row, decide in zip(rows, self._rows, strict=True):
            own = agents._replace(**{name: getattr(agents, name)[row] for name in ARRAY_FIELDS})
            if isinstance(view, ClusterView):
                own = view._replace(agents=own, **{name: getattr(view, name)[row] for name in ROWS})
            asked = decide(observe(own) if isinstance(own, View) and not self.reads_view else own)
            if np.shape(asked) != shares[row].shape:
                raise ValueError(
                    f"policy {self._name!r} must return shares of shape {shares[row].shape}, got "
                    f"{_on_one_line(asked)}"
                )
            if np.isnan(asked).any():
                raise ValueError(
                    f"policy {self._name!r} returned a share that is NaN, got {_on_one_line(asked)}"
                )
            shares[row] = asked
        return shares


def _on_one_line(value: object) -> str:
    return shortened(" ".join(repr(value).split()))


def own_policy(name: str) -> OneByOne:
    """The policy that stands in a module, a function or a class that is made without arguments.

    Raises:
        ValueError: no such module, nothing of that name in it, nothing that can be called, or nothing that
            can begin an episode.
    """
    module_name, _, path = name.partition(":")
    found: object = module_of_user(module_name, f"policy {name!r}")
    for part in path.split("."):
        if not hasattr(found, part):
            raise ValueError(f"policy {name!r}: there is no {part!r} in {module_name!r}")
        found = getattr(found, part)
    if isinstance(found, type):
        found = found()
    if not isinstance(found, Callable):
        raise ValueError(f"policy {name!r} must be a function, got {type(found).__name__}")
    try:
        begun(found)
    except TypeError as error:
        raise ValueError(f"policy {name!r}: {error}") from error
    return OneByOne(name, found)

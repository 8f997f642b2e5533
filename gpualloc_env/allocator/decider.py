"""What decides by a network, and the actions that its outputs stand for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpualloc_env.allocator.actions import ACTIONS, ASSUMPTIONS, outputs_for
from gpualloc_env.allocator.networks import KINDS
from gpualloc_env.allocator.receding_horizon import Assumed
from gpualloc_env.simulation.observation import OBSERVATION_FEATURES, Packed
from gpualloc_env.simulation.state import AnyArray, Array


class Decider:
    """Fractions of the platform by a network; pickled as what it is made from."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        arrays: Mapping[str, AnyArray],
        agents: int,
        columns: Sequence[str] = OBSERVATION_FEATURES,
    ) -> None:
        """Hold a network and its actions.

        Args:
            settings: of the network, its `kind` a key of `KINDS`, with its `actions`, of a kind in `ACTIONS`.
            arrays: of the network.
            agents: N.
            columns: names of the columns of the observation that the network reads, in its order.

        Raises:
            KeyError: a setting is missing.
            ValueError: the parts do not fit each other or the agents.
        """
        self._parts = settings, arrays, agents, columns
        actions = settings["actions"]
        make_actions, *_ = ACTIONS[actions["kind"]]
        self._network = KINDS[settings["kind"]](settings, arrays, agents, columns)
        self.act = make_actions(actions)
        """From observations, what `outputs` says of them, and the view behind them to fractions, (B, N)."""
        make_assumption = ASSUMPTIONS.get(actions["kind"])
        self._assume = make_assumption(actions) if make_assumption else None
        width = self._network(np.zeros((1, agents, len(columns)), dtype=np.float32)).shape[1]
        needed = outputs_for(actions["kind"], agents)
        if width != needed:
            raise ValueError(f"{actions['kind']} for {agents} agents needs {needed} outputs, got {width}")
        self._chosen = None
        if tuple(columns) != OBSERVATION_FEATURES:
            self._chosen = [OBSERVATION_FEATURES.index(name) for name in columns]

    def __call__(self, observation: AnyArray, packed: Packed | None) -> Array:
        """Fractions, (B, N), for observations, (B, N, F) float32, and the view behind them, if known."""
        return self.act(observation, self.outputs(observation), packed)

    def assumed(self, observation: AnyArray) -> Assumed | None:
        """What receding-horizon control assumes for observations; None where it does not decide."""
        if self._assume is None:
            return None
        return self._assume(self.outputs(observation).reshape(*observation.shape[:2], -1))

    def outputs(self, observation: AnyArray) -> AnyArray:
        """What the network says of observations, (B, A)."""
        if self._chosen is None:
            return self._network(observation)
        return self._network(np.ascontiguousarray(observation[..., self._chosen]))

    def __reduce__(self) -> tuple[Any, ...]:
        return Decider, self._parts

"""From what a platform counts to what an allocator reads: `Telemetry` remembers, smooths and names."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpualloc_env.listing import listed
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.shares import CLOCK_TOLERANCE, RATE_TIME_CONSTANT_S


class Telemetry:
    """Fills in the fields of a `View` that do not change, and those that need the steps before.

    Once a step it is told the queues, the requests that came and the shares in force, each a number by the
    agents' names. It smooths the arrival rates exactly as the simulator does, and counts how long an
    agent has held no share.
    """

    def __init__(self, scenario: Scenario, loaded: bool = True) -> None:
        """Take the agents' parameters and the platform's from a scenario, as a TOML file holds them.

        Args:
            scenario: of the platform; its traffic plays no part.
            loaded: whether all models are loaded at the start.

        Raises:
            ValueError: its agents serve calls, of whose servers more must be known.
        """
        if scenario.service == "requests":
            raise ValueError(
                f"scenario {scenario.name!r} serves calls, whose batches Telemetry does not count; "
                "give `decide` a mapping with all fields of a View"
            )
        self.agents = scenario.agent_names
        platform, self._dt = scenario.platform, scenario.dt
        self._cold_start = {agent.name: platform.cold_start_s(agent.model_mb) for agent in scenario.agents}
        self._constant: dict[str, Any] = {
            "throughput": {agent.name: agent.throughput_rps for agent in scenario.agents},
            "kappa": {agent.name: agent.kappa or 0.0 for agent in scenario.agents},
            "min_share": {agent.name: agent.min_share for agent in scenario.agents},
            "priority": {agent.name: agent.priority for agent in scenario.agents},
            "slo": {agent.name: agent.slo_s for agent in scenario.agents},
            "cold_start": self._cold_start,
            "dt": scenario.dt,
            "gpus": platform.gpus,
            "max_share": platform.max_share,
            "slice": platform.slice or 0.0,
            "reallocation_s": platform.reallocation_s,
            "deadband": platform.deadband,
            "keep_alive_s": platform.keep_alive_s,
        }
        self._steps = 0
        self._rate = dict.fromkeys(self.agents, 0.0)
        self._idle = dict.fromkeys(self.agents, 0.0)
        self._loading = dict.fromkeys(self.agents, 0.0) if loaded else dict(self._cold_start)

    def view(
        self,
        *,
        queue: Mapping[str, float],
        inflow: Mapping[str, float],
        share: Mapping[str, float],
        oldest_age: Mapping[str, float],
        loading: Mapping[str, float] | None = None,
    ) -> dict[str, Any]:
        """The mapping that `Allocator.decide` reads, once a step.

        Args:
            queue: requests waiting, those that came in this step included.
            inflow: requests that came since the last step. One that is not a number, or negative, as when a
                counter starts again, is no part of the smoothed rate.
            share: GPUs held since the last step.
            oldest_age: age of the oldest waiting request [s], 0 where none waits.
            loading: seconds still needed to load a model, by default as the platform's description says.

        Raises:
            ValueError: a mapping that has other agents, or no number for one.
        """
        given: dict[str, Mapping[str, object]] = {
            "queue": queue,
            "inflow": inflow,
            "share": share,
            "oldest_age": oldest_age,
            **({} if loading is None else {"loading": loading}),
        }
        for name, numbers in given.items():
            if not isinstance(numbers, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ValueError(
                    f"{name} must be a mapping with a number for each of {listed(self.agents)}, "
                    f"by their names, got {numbers!r:.80}"
                )
            wrong = {*numbers} ^ {*self.agents} or {
                agent for agent, number in numbers.items() if not isinstance(number, int | float | np.number)
            }
            if wrong:
                raise ValueError(
                    f"{name} must have a number for each of {listed(self.agents)}, got "
                    f"{ {agent: numbers.get(agent) for agent in sorted(wrong)} }"
                )
        # The mean of all steps at first, a memory of ten seconds later.
        elapsed = self._dt / RATE_TIME_CONSTANT_S
        gain = math.expm1(-elapsed) / math.expm1(-(self._steps + 1) * elapsed)
        for name in self.agents:
            if 0.0 <= inflow[name] < math.inf:
                self._rate[name] += gain * (inflow[name] / self._dt - self._rate[name])
            if self._steps:
                self._age(name, share[name] > 0)
        self._steps += 1
        loading = self._loading if loading is None else loading
        state = {"rate": self._rate, "idle": self._idle, "loading": loading}
        return {**given, **{name: dict(numbers) for name, numbers in state.items()}, **self._constant}

    def _age(self, name: str, holds: bool) -> None:
        """One more step with a share, in which the model loads, or without."""
        if holds:
            self._idle[name], self._loading[name] = 0.0, max(0.0, self._loading[name] - self._dt)
            return
        self._idle[name] += self._dt
        # As the simulator, with the rounding of a sum of steps.
        if self._idle[name] >= self._constant["keep_alive_s"] * (1.0 - CLOCK_TOLERANCE):
            self._loading[name] = self._cold_start[name]

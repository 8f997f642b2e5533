"""The service of calls once more, as a SimPy model: processes and interrupts, one environment."""

from collections.abc import Callable, Generator, Sequence
from math import inf
from typing import Any

import simpy

from gpualloc_env.scenario.agents import Agent
from gpualloc_env.simulation.calls import Tasks

EPSILON = 1e-9  # tokens or seconds of work that are none
ShareOf = Callable[[str, float], tuple[float, float]]
"""Share of an agent's server at a time, and when it changes next."""


class Server:
    """One agent's server: a queue, a prefill and a batch whose calls share one rate."""

    def __init__(self, env: simpy.Environment, agent: Agent, share_of: ShareOf) -> None:
        """Begin to serve."""
        self.env, self.agent, self.share_of = env, agent, share_of
        self.waiting: list[Call] = []
        self.running: list[Call] = []
        self.prefill: Call | None = None
        self.bell = env.event()
        env.process(self.serve())

    def ring(self) -> None:
        """Wake the server: something has come."""
        if not self.bell.triggered:
            self.bell.succeed()

    def put(self, call: "Call") -> None:
        """Issue a call."""
        call.issued = self.env.now
        self.waiting.append(call)
        self.ring()

    def admit(self) -> None:
        """Begin the prefill of the first call that waits, if the batch has room for it."""
        agent = self.agent
        if self.prefill is None and self.waiting and len(self.running) < agent.max_batch:
            call = self.waiting[0]
            room = sum(other.prompt + other.output for other in self.running)
            if room + call.prompt + call.output <= agent.kv_tokens:
                self.prefill = self.waiting.pop(0)
                call.work = (agent.prefill_s_per_token or 0.0) * call.prompt

    def speedup(self, share: float) -> float:
        """f(g)."""
        kappa = self.agent.kappa
        return share if kappa is None else share * (1 + kappa) / (share + kappa)

    def serve(self) -> Generator[Any, Any, None]:
        """Work until the next end, change of share or arrival, over and over."""
        agent = self.agent
        base, per_call = agent.iteration_s or 0.0, agent.iteration_s_per_call or 0.0
        while True:
            self.admit()
            self.bell = self.env.event()
            share, change = self.share_of(agent.name, self.env.now)
            speed = left = 0.0
            if share > 0 and self.prefill is not None:
                speed, left = share, self.prefill.work
            elif share > 0 and self.running:
                iteration = base + per_call * len(self.running)
                speed = self.speedup(share) / iteration
                left = min(call.work for call in self.running)
            start = self.env.now
            wait = left / speed if speed > 0 else inf
            until = max(0.0, min(wait, change - start))
            yield self.env.timeout(until) | self.bell
            if speed == 0:
                continue
            exact = self.env.now >= start + wait
            done = left if exact else (self.env.now - start) * speed
            if self.prefill is not None:
                call = self.prefill
                call.work -= done
                if exact:
                    self.prefill, call.first_token, call.work = None, self.env.now, call.output - 1
                    if call.work == 0:
                        call.done.succeed()
                    else:
                        self.running.append(call)
            else:
                for call in self.running:
                    call.work -= done
                if exact:
                    # Those that end together end before anything else begins.
                    for call in [call for call in self.running if call.work < EPSILON]:
                        self.running.remove(call)
                        call.done.succeed()


class Call:
    """A call: its tokens, what is left to do, and the times of its issue, first token and end."""

    def __init__(self, env: simpy.Environment, prompt: int, output: int) -> None:
        """A call that is not issued yet."""
        self.prompt, self.output, self.work = int(prompt), int(output), 0.0
        self.issued = self.first_token = self.finished = inf
        self.done = env.event()
        self.done.callbacks.append(lambda _: setattr(self, "finished", env.now))


def simulate(
    agents: Sequence[Agent], tasks: Tasks, share_of: ShareOf, horizon: float
) -> list[tuple[float, float, float]]:
    """Serve the tasks of an episode; returns (C, 3) times of issue, first token and end, inf where none.

    `share_of(name, time)` is the share that an agent's server works with and when it changes next.
    """
    env = simpy.Environment()
    servers = [Server(env, agent, share_of) for agent in agents]
    calls = [Call(env, p, o) for p, o in zip(tasks.prompt, tasks.output, strict=True)]

    def issue(c: int) -> Generator[Any, Any, None]:
        if tasks.after_s[c] > 0:
            yield env.timeout(tasks.after_s[c])
        servers[tasks.agent[c]].put(calls[c])
        yield calls[c].done

    def lead(m: int) -> Generator[Any, Any, None]:
        yield env.timeout(tasks.time[m])
        own = range(tasks.first[m], tasks.first[m + 1])
        for stage in sorted({int(tasks.stage[c]) for c in own}):
            yield env.all_of([env.process(issue(c)) for c in own if tasks.stage[c] == stage])

    for m in range(len(tasks.time)):
        env.process(lead(m))
    env.run(until=horizon)
    return [(call.issued, call.first_token, call.finished) for call in calls]

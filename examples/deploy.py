"""An allocator in a control loop: shadow first, then live, with metrics for Prometheus.

    python examples/deploy.py allocator.npz my-scenario.toml

`Platform` is the only part to replace: it stands for what your cluster counts and what it obeys.
"""

import sys
from collections.abc import Mapping

import gymnasium as gym

import gpualloc_env  # noqa: F401  registers the environment
from gpualloc_env.allocator import Allocator, Shadow, Telemetry, mps_percentages
from gpualloc_env.allocator.prometheus import AllocatorCollector
from gpualloc_env.scenario.loading import load_scenario

Numbers = dict[str, float]


class Platform:
    """Your cluster; here a simulated one. Numbers come and go by the agents' names."""

    def __init__(self, scenario: str) -> None:
        """Start it, every agent with an equal share."""
        self._env = gym.make("GPUAlloc-v0", scenario=scenario).unwrapped
        self._env.reset(seed=0)
        self.agents = self._env.scenario.agent_names

    def count(self) -> dict[str, Numbers]:
        """Queues, arrivals since the last step, shares in force, age of the oldest request."""
        view = self._env.view
        names = ("queue", "inflow", "share", "oldest_age")
        return {name: dict(zip(self.agents, getattr(view, name).tolist(), strict=True)) for name in names}

    def apply(self, shares: Mapping[str, float]) -> bool:
        """Put shares in force, fractions of all GPUs, until the next step; whether there is a next step."""
        return not self._env.step([shares[name] for name in self.agents])[3]


def main(allocator_file: str, scenario_file: str, shadow_steps: int = 60) -> None:
    """Run the loop: the first steps in the shadow of equal shares, then live."""
    scenario = load_scenario(scenario_file)
    platform, telemetry = Platform(scenario_file), Telemetry(scenario)
    allocator = Allocator.load(allocator_file, agents=telemetry.agents)
    equal = dict.fromkeys(telemetry.agents, 1 / len(telemetry.agents))
    with allocator.shadow("shadow.jsonl") as shadow:
        serve_metrics(allocator, shadow)
        step, goes_on = 0, True
        while goes_on:
            view = telemetry.view(**platform.count())
            if step < shadow_steps:
                shadow(view, list(equal.values()))
                shares = equal
            else:
                shares = dict(zip(telemetry.agents, allocator.decide(view).tolist(), strict=True))
            goes_on = platform.apply(shares)
            step += 1
    print(
        f"{step} steps, {sum(allocator.fallbacks.values())} fallbacks, {shadow.errors} errors in the shadow"
    )
    print(f"last as percentages of MPS: {mps_percentages(shares)}")


def serve_metrics(allocator: Allocator, shadow: Shadow, port: int = 9100) -> None:
    """Show the counts on a port for Prometheus, where `prometheus-client` is installed."""
    try:
        from prometheus_client import start_http_server  # pip install 'gpualloc-env[prometheus]'
    except ImportError:
        return
    AllocatorCollector(allocator, shadow)
    start_http_server(port)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} ALLOCATOR.npz SCENARIO")
    main(*sys.argv[1:3])

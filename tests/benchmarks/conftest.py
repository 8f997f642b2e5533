"""What benchmarks measured, at the end of a run: ratios to CartPole-v1, time and memory.

A ratio is measured chunk by chunk between two chunks of CartPole itself.

The speed of a shared machine drifts within seconds, so a reference that is measured once, before
or after, tells little. Each round of a benchmark has its own reference on either side.
"""

from time import perf_counter

import gymnasium as gym
import numpy as np
import pytest

REFERENCE_STEPS = 3000


class Reference:
    """CartPole-v1 through `gym.make`: its speed around every round of a benchmark."""

    def __init__(self):
        self.env = gym.make("CartPole-v1")
        self.env.reset(seed=0)
        self.actions = [self.env.action_space.sample() for _ in range(REFERENCE_STEPS)]
        self.rates = []

    def measure(self):
        start = perf_counter()
        for action in self.actions:
            _, _, terminated, truncated, _ = self.env.step(action)
            if terminated or truncated:
                self.env.reset()
        self.rates.append(REFERENCE_STEPS / (perf_counter() - start))


@pytest.fixture
def against_cartpole(benchmark):
    """Measure `run`, which takes `steps` steps, in rounds, each between two chunks of CartPole-v1."""

    def measure(label, steps, run, rounds):
        reference = Reference()
        reference.measure()
        reference.rates.clear()
        run()
        benchmark.pedantic(run, setup=reference.measure, rounds=rounds)
        reference.measure()
        speed = steps / np.array(benchmark.stats.stats.data)
        around = np.array(reference.rates)
        benchmark.extra_info.update(
            label=label,
            steps_per_s=float(np.median(speed)),
            reference_steps_per_s=float(np.median(around)),
            ratios=sorted((speed / (0.5 * (around[:-1] + around[1:]))).tolist()),
        )

    return measure


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    benchmarks = session.benchmarks if session else []
    measured = [bench.extra_info for bench in benchmarks if "ratios" in bench.extra_info]
    if measured:
        terminalreporter.section("steps per second, as a multiple of CartPole-v1 through gym.make")
        terminalreporter.write_line(
            f"{'median of the rounds':<42} {'steps/s':>14} {'ratio':>8}   middle half"
        )
    for info in measured:
        low, middle, high = np.quantile(info["ratios"], [0.25, 0.5, 0.75])
        terminalreporter.write_line(
            f"{info['label']:<42} {info['steps_per_s']:>14,.0f} {middle:>8.2f}   {low:.2f} to {high:.2f}"
        )
    for bench in benchmarks:
        if "agents" in bench.extra_info:
            nanoseconds = 1e9 * bench.stats.median / bench.extra_info["agents"]
            terminalreporter.write_line(f"{bench.extra_info['label']:<42} {nanoseconds:>14.2f} ns an agent")
    for kind, unit, scale in (("decisions", "µs a decision for 4 agents", 1e6), ("episodes", "s", 1.0)):
        timed = [bench for bench in benchmarks if kind in bench.extra_info]
        if timed:
            terminalreporter.section(f"allocators: {kind}")
        for bench in timed:
            count = bench.extra_info[kind] if kind == "decisions" else 1
            terminalreporter.write_line(
                f"{bench.extra_info['label']:<24} {scale * bench.stats.median / count:>10.2f} {unit}"
                + (f" for {bench.extra_info[kind]} episodes" if kind == "episodes" else "")
            )
    for bench in benchmarks:
        if "episode_s" in bench.extra_info:
            terminalreporter.write_line(
                f"{bench.extra_info['label']:<42} {bench.stats.median:>14.3f} s an episode"
            )
    logs = [bench for bench in benchmarks if "peak_mb" in bench.extra_info]
    if logs:
        terminalreporter.section("logs of a million requests made into episodes")
        for bench in logs:
            log, peak = bench.extra_info["log_mb"], bench.extra_info["peak_mb"]
            terminalreporter.write_line(
                f"{bench.extra_info['label']:<16} {log:>8,.0f} MiB {bench.stats.median:>8.2f} s, "
                f"peak memory {peak:>6,.0f} MiB above the interpreter with the package"
            )
    decisions = [bench.extra_info for bench in benchmarks if "decision_us" in bench.extra_info]
    if decisions:
        terminalreporter.section("one decision of an exported allocator beside stable-baselines3's predict")
    for info in decisions:
        terminalreporter.write_line(
            "{label:<28} p50 {:>6.1f} µs, p99 {:>6.1f} µs; predict p50 {:>6.1f} µs, p99 {:>6.1f} µs; "
            "{faster:.1f} times faster".format(*info["decision_us"], *info["predict_us"], **info)
        )

"""Ratios at the end of a benchmark run: every steps/s as a multiple of CartPole-v1's in the same run."""

import pytest

REFERENCE = "CartPole-v1, gym.make"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    results = [bench for bench in session.benchmarks if "steps" in bench.extra_info] if session else []
    rates = {bench.extra_info["label"]: bench.extra_info["steps"] / bench.stats.median for bench in results}
    if REFERENCE not in rates:
        return
    terminalreporter.section("steps per second, median of the rounds")
    for label, rate in rates.items():
        ratio = rate / rates[REFERENCE]
        terminalreporter.write_line(f"{label:<42} {rate:>14,.0f} {ratio:>10.2f} × CartPole-v1")
    for bench in session.benchmarks:
        if "agents" in bench.extra_info:
            nanoseconds = 1e9 * bench.stats.median / bench.extra_info["agents"]
            terminalreporter.write_line(f"{bench.extra_info['label']:<42} {nanoseconds:>14.2f} ns an agent")

"""What benchmarks measured, at the end of a run: ratios to CartPole-v1 in the same run, time and memory."""

import pytest

REFERENCE = "CartPole-v1, gym.make"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    benchmarks = session.benchmarks if session else []
    results = [bench for bench in benchmarks if "steps" in bench.extra_info]
    rates = {bench.extra_info["label"]: bench.extra_info["steps"] / bench.stats.median for bench in results}
    if REFERENCE in rates:
        terminalreporter.section("steps per second, median of the rounds")
        for label, rate in rates.items():
            ratio = rate / rates[REFERENCE]
            terminalreporter.write_line(f"{label:<42} {rate:>14,.0f} {ratio:>10.2f} × CartPole-v1")
    for bench in benchmarks:
        if "agents" in bench.extra_info:
            nanoseconds = 1e9 * bench.stats.median / bench.extra_info["agents"]
            terminalreporter.write_line(f"{bench.extra_info['label']:<42} {nanoseconds:>14.2f} ns an agent")
    logs = [bench for bench in benchmarks if "peak_mb" in bench.extra_info]
    if logs:
        terminalreporter.section("logs of a million requests made into episodes")
        for bench in logs:
            log, peak = bench.extra_info["log_mb"], bench.extra_info["peak_mb"]
            terminalreporter.write_line(
                f"{bench.extra_info['label']:<16} {log:>8,.0f} MiB {bench.stats.median:>8.2f} s, "
                f"peak memory {peak:>6,.0f} MiB above the interpreter with the package"
            )

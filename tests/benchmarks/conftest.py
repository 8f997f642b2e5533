"""The report of what was measured: at the end of a run, as Markdown and as JSON in `runs/bench`.

A run of all benchmarks also writes the tables of `docs/benchmarks.md`.

A benchmark hands its result to one of two tables: steps per second as multiples of CartPole-v1
(`against_cartpole`), or any other figure (`record`).
"""

import json

import numpy as np
import pytest
from support.places import ROOT
from support.speed_report import markdown, of_the_page, report
from support.stepping import Reference, cartpole, ratios

from training.reporting.published import filled

OUT = ROOT / "runs" / "bench"


@pytest.fixture
def between(benchmark):
    """Measure a loop in rounds of some parts, each part between two runs of a reference loop.

    Returns:
        How many times faster than the reference it was in each round.
    """

    def measure(loop, reference, rounds, parts=1):
        reference.measure()
        reference.rates.clear()
        if parts == 1:
            loop.run()
        benchmark.pedantic(loop.run, setup=reference.measure, rounds=rounds * parts)
        reference.measure()
        return ratios(loop, benchmark.stats.stats.data, reference.rates, parts)

    return measure


@pytest.fixture
def against_cartpole(benchmark, between):
    """Measure a loop beside CartPole-v1 through `gym.make`, for a row of the table of steps."""

    def measure(loop, rounds, parts=1, **row):
        reference = Reference(cartpole())
        low, middle, high = np.quantile(between(loop, reference, rounds, parts), [0.25, 0.5, 0.75]).tolist()
        seconds = np.reshape(benchmark.stats.stats.data, (rounds, parts)).sum(axis=1)
        assert loop.env.observation_space.contains(loop.env.reset()[0])
        speed = parts * loop.steps / float(np.median(seconds))
        agents = row.get("agents")
        benchmark.extra_info.update(
            row={
                **row,
                "ratio": middle,
                "ratio_quartiles": [low, high],
                "steps_per_s": speed,
                "ns_per_agent_step": 1e9 / (speed * agents) if agents else None,
                "rounds": rounds,
            },
            reference_steps_per_s=float(np.median(reference.rates)),
        )

    return measure


@pytest.fixture
def record(benchmark):
    """Hand over a figure: its group, name, value, unit and what else there is to say."""

    def keep(group, name, value, unit, note=""):
        figure = {"group": group, "name": name, "value": float(value), "unit": unit, "note": note}
        benchmark.extra_info.update(figure=figure)

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    results = [bench.extra_info for bench in session.benchmarks] if session else []
    if not any("row" in result or "figure" in result for result in results):
        return
    measured = report(results)
    OUT.mkdir(parents=True, exist_ok=True)
    text = json.dumps(measured, indent=2, ensure_ascii=False) + "\n"
    (OUT / "bench.json").write_text(text, encoding="utf-8")
    (OUT / "bench.md").write_text(markdown(measured), encoding="utf-8")
    page = ROOT / "docs" / "benchmarks.md"
    page.write_text(filled(page.read_text(encoding="utf-8"), of_the_page(measured)), encoding="utf-8")
    terminalreporter.section("runs/bench/bench.md (and bench.json)")
    terminalreporter.write_line(markdown(measured))

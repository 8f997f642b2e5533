"""Fit a synthetic scenario to a request log, and say how well it repeats the log.

python -m training.fit AzureLLMInferenceTrace_code.csv --out my-scenario.toml
"""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.text import Text

from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.traces.formats import read_log
from training.cli import asked, command_line, results_console, run, status_console, track
from training.evaluation.seeds import FIRST_VALIDATION_SEED
from training.fitting.drawn_log import drawn_times
from training.fitting.fit_report import Comparison, notes, table, table_of_agents, verdicts
from training.fitting.fitted_scenario import check_out, fitted_scenario, write_scenario
from training.fitting.log_statistics import Statistics, statistics
from training.fitting.request_streams import RequestStreams, request_streams, rounded
from training.fitting.traffic_fit import SHORTEST_BURST_S, fit_traffic
from training.limits import Limits
from training.reporting.markdown import markdown_table
from training.reporting.report import print_tables


@dataclass(frozen=True)
class FitConfig(Overrides):
    """Fit a synthetic scenario to a request log."""

    log: tyro.conf.Positional[Path]
    """A request log in one of the formats that `--trace` takes."""
    out: Path
    """The TOML file to write; it must not exist yet."""
    scenario: str = "serverless"
    """A registered scenario, or the path of a .toml file, whose agents, platform and objective are kept."""
    draws: Annotated[int, Limits(2, 1000)] = 20
    """Logs to draw from the fitted scenario, each as long as the log, to show how much they differ."""
    seed: Annotated[int, Limits(0, FIRST_VALIDATION_SEED, open_high=True)] = 0
    """Seed of the first of them; the others follow it."""


def main(config: FitConfig) -> None:
    """Read, fit, draw logs from what was fitted, write the scenario and print the comparison."""
    status = status_console()
    check_out(config.out)
    check_changes(config)
    base = load_scenario(config.scenario, replace(config, time_unit=None))
    if base.nodes:
        raise ValueError(
            f"scenario {base.name!r} has nodes, and traffic is fitted for one pool of GPUs alone; give "
            "--scenario one without nodes, or make a cluster that replays the log: python -m training.cluster"
        )
    log = read_log(config.log, config.time_unit)
    streams = request_streams(log, base.agent_names, base.service)
    with status.status("Fitting") as line:
        shortest = max(SHORTEST_BURST_S, streams.quantum_s)
        fit = fit_traffic(streams.times, streams.span_s, shortest, lambda text: line.update(Text(text)))
    scenario = fitted_scenario(config.out.stem, base, log, fit.traffic)
    all_requests, by_name = compared(
        config, scenario, streams, several=len(log.agent_names) > 1, status=status
    )
    said = [*notes(log, streams, scenario, fit), *verdicts(all_requests, by_name, fit.traffic.burst)]
    tables = {f"{log.path.name} and the fit": table(all_requests)}
    if by_name:
        tables["By agent"] = table_of_agents(by_name)
    given = {"out": config.out, **asked(config, FitConfig(config.log, config.out))}
    command = command_line("fit", config.log, **given)
    texts = [markdown_table(rows) for rows in tables.values()]
    write_scenario(config.out, scenario, [command, f"Log: {log.path}", "", *texts, "", *said])
    console = results_console()
    print_tables(console, tables)
    console.print(*said, "", sep="\n", soft_wrap=True)
    again = f"python -m training.compare --scenario {shlex.quote(str(config.out))}"
    console.print(f"Scenario in {config.out}; try: {again}", soft_wrap=True)


def compared(
    config: FitConfig, scenario: Scenario, streams: RequestStreams, *, several: bool, status: Console
) -> tuple[Comparison, dict[str, Comparison]]:
    """The log beside logs drawn from the scenario: all requests, and each agent's where it names several."""
    seeds = range(config.seed, config.seed + config.draws)
    draws = [
        by_agent(drawn_streams(scenario, streams, seed))
        for seed in track(seeds, "Drawing logs from the fit", status)
    ]
    all_requests, *agents = (
        Comparison(measured, np.array(drawn))
        for measured, drawn in zip(by_agent(streams), zip(*draws, strict=True), strict=True)
    )
    named = zip(scenario.agent_names, streams.times, agents, strict=True)
    return all_requests, {name: each for name, times, each in named if len(times) and several}


def check_changes(config: FitConfig) -> None:
    """Refuse changes to the traffic, which the log tells."""
    for name in ("load", "trace", "split"):
        if name in config.changes:
            raise ValueError(
                f"--{name} has no meaning where the traffic is fitted to a whole log; give it to the command "
                "that plays the fitted scenario"
            )


def drawn_streams(scenario: Scenario, streams: RequestStreams, seed: int) -> RequestStreams:
    """A log drawn from the scenario, as long as the given one and told by the same clock."""
    times = drawn_times(scenario, streams.span_s, seed)
    return rounded(replace(streams, times=times), seed)


def by_agent(streams: RequestStreams) -> list[Statistics]:
    """Statistics of all requests, then of each agent's."""
    return [statistics(times, streams.span_s) for times in (streams.merged, *streams.times)]


if __name__ == "__main__":
    run(main, FitConfig)

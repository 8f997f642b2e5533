"""How well a fitted scenario repeats a log: the table of both, and in words where it does not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.stats import t

from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.scenario.traffic import Burst
from gpualloc_env.simulation.state import Array
from gpualloc_env.traces.log import Log
from training.fitting.burst_likelihood import HIGHEST_RATIO
from training.fitting.log_statistics import WINDOWS_S, Statistics
from training.fitting.request_streams import RequestStreams
from training.fitting.traffic_fit import TrafficFit

NAMES = (
    "mean rate [1/s]",
    "coefficient of variation of the gaps",
    *(f"index of dispersion at {window:g} s" for window in WINDOWS_S),
    f"peak over mean at {WINDOWS_S[-1]:g} s",
)
RATE, GAPS, *_, MINUTE, PEAK = range(len(NAMES))
COARSE_S = 1e-3  # stamps finer than this are not worth a word
# A difference is real outside the interval that holds so much of the draws, and above so much of the log.
PREDICTION, FRACTION = 0.99, 0.1


@dataclass(frozen=True, slots=True)
class Comparison:
    """Statistics of a log, and of as long logs drawn from the scenario that was fitted to it."""

    log: Statistics
    draws: Array  # (R, 6)

    @property
    def mean(self) -> Array:
        """Mean over the draws in which each statistic is defined, (6,); NaN where it never is."""
        return np.ma.masked_invalid(self.draws).mean(axis=0).filled(np.nan)

    @property
    def deviation(self) -> Array:
        """Standard deviation of one draw, (6,): the noise in a log of this length."""
        return np.ma.masked_invalid(self.draws).std(axis=0, ddof=1).filled(np.nan)

    @property
    def poor(self) -> list[int]:
        """Statistics in which the log differs by more than chance and by more than a tenth."""
        difference = np.abs(np.array(self.log) - self.mean)
        draws = len(self.draws)
        # The prediction interval of one more draw, where the mean and the deviation are estimates too.
        chance = t.ppf(0.5 + PREDICTION / 2, draws - 1) * self.deviation * sqrt(1 + 1 / draws)
        real = (difference > chance) & (difference > FRACTION * np.abs(self.log))
        return np.flatnonzero(real).tolist()


def table(comparison: Comparison) -> list[dict[str, str]]:
    """One row for each statistic of all requests."""
    drawn = f"fit: mean of {len(comparison.draws)} draws"
    return [
        {"statistic": name, "log": f"{value:.3g}", drawn: f"{mean:.3g} ± {deviation:.2g}"}
        for name, value, mean, deviation in zip(
            NAMES, comparison.log, comparison.mean, comparison.deviation, strict=True
        )
    ]


def table_of_agents(comparisons: Mapping[str, Comparison]) -> list[dict[str, str]]:
    """One row for each agent: the log's value and the mean and spread of the draws."""
    short = {RATE: "rate [1/s]", GAPS: "CV of gaps", MINUTE: "dispersion 60 s", PEAK: "peak / mean"}
    rows: list[dict[str, str]] = []
    for agent, comparison in comparisons.items():
        row = {"agent": agent}
        for k, name in short.items():
            row[f"{name},\nlog"] = f"{comparison.log[k]:.3g}"
            row[f"{name},\nfit"] = f"{comparison.mean[k]:.3g} ± {comparison.deviation[k]:.1g}"
        rows.append(row)
    return rows


def verdicts(everything: Comparison, agents: Mapping[str, Comparison], burst: Burst | None) -> list[str]:
    """Sentences that say where the fit is poor, or that it is not."""
    sentences = [_sentence(k, everything, burst) for k in everything.poor]
    for agent, comparison in agents.items():
        names = [NAMES[k] for k in comparison.poor]
        if names:
            pairs = [f"{comparison.log[k]:.3g} and {comparison.mean[k]:.3g}" for k in comparison.poor]
            verb = "are" if len(names) > 1 else "is"
            sentences.append(
                f"Agent {agent}: {_list(names)} {verb} {_list(pairs)} in the log and in the fit; "
                "one burst process and one cycle serve all agents of a scenario."
            )
    if not sentences:
        return [
            f"No statistic of the log lies outside {PREDICTION:.0%} of the draws and more than "
            f"{FRACTION:.0%} from the fit."
        ]
    return sentences


def notes(log: Log, streams: RequestStreams, scenario: Scenario, fit: TrafficFit) -> list[str]:
    """Sentences on what was fitted, and on what a reader should know about it."""
    traffic, burst, cycle = fit.traffic, fit.traffic.burst, fit.traffic.cycle
    assert traffic.rates_rps is not None
    chosen = min(fit.bic, key=lambda name: fit.bic[name])
    others = ", ".join(
        f"{name} +{bic - fit.bic[chosen]:.0f}" for name, bic in fit.bic.items() if name != chosen
    )
    said = [f"{len(log.time_s)} requests in {streams.span_s:.0f} s. Law: {chosen} (BIC: {others})."]
    if streams.quantum_s >= COARSE_S:
        said.append(
            f"Requests share stamps, which are multiples of {streams.quantum_s:.3g} s: they were spread "
            f"over the {streams.quantum_s:.3g} s after each, in the log and in the draws alike; of anything "
            "shorter the log tells nothing."
        )
    if burst is not None:
        said.append(
            f"Bursts: {burst.ratio:.3g} times the rate, "
            f"{burst.on_s:.3g} s on and {burst.off_s:.3g} s off in the mean"
            + (", of all agents at once" if burst.common else "")
            + (": hardly a request comes while off." if burst.ratio >= HIGHEST_RATIO / 2 else ".")
        )
    if cycle is not None:
        covered = streams.span_s / cycle.period_s
        said.append(
            f"Cycle: ± {cycle.amplitude:.0%} with a period of {cycle.period_s:.4g} s, of which the log "
            f"covers {covered:.3g}" + ("; it may be a trend that does not return." if covered < 2 else ".")
        )
    elif fit.candidate is not None:
        weighed = "is explained better by the bursts"
        if not fit.candidate.stands_out:
            weighed = (
                f"gains {fit.candidate.gain:.3g} in quasi-log-likelihood, "
                f"BIC asks for {fit.candidate.threshold:.3g}"
            )
        said.append(
            f"No cycle: the likeliest within the {streams.span_s:.0f} s of the log, of "
            f"{fit.candidate.period_s:.4g} s, {weighed}."
        )
    if log.agent is None and scenario.routing is not None:
        names, parts = scenario.agent_names, scenario.routing[0]
        shown = [f"{name} {part:.3g}" for name, part in zip(names, parts, strict=True) if part]
        handed = (
            ", ".join(shown) if len(shown) < 10 else f"each to one of {len(shown)} agents, by prompt length"
        )
        said.append(f"The log names no agents: all requests arrive at {names[0]}, which hands on {handed}.")
    if scenario.service == "requests":
        tokens = [f"{a.name} {a.prompt_tokens:.4g} + {a.output_tokens:.4g}" for a in scenario.agents]
        said.append(f"A request is one call; mean tokens of prompt + output: {', '.join(tokens)}.")
        if log.agent is None:
            said.append("The log names no agents: each request goes to one by the length of its prompt.")
    else:
        said += _uneven_work(log)
    load = scenario.utilisation(np.array(traffic.rates_rps))
    said.append(f"Load ρ = {load:.3g} on {scenario.platform.gpus:g} GPU; --load 0.8 rescales the rates.")
    return said


def _uneven_work(log: Log) -> list[str]:
    """A warning where the agents' requests differ in work, which drawn requests do not."""
    if log.agent is None:
        return []
    counts = np.bincount(log.agent)
    mean = np.bincount(log.agent, weights=log.work) / counts
    uneven = {
        name: work for name, work in zip(log.agent_names, mean, strict=True) if abs(work - 1) > FRACTION
    }
    if not uneven:
        return []
    values = _list([f"{work:.3g} ({name})" for name, work in uneven.items()])
    return [
        f"The mean work of a request is {values} in the log and 1 in every scenario; divide throughput_rps "
        "of these agents by it to have the log's load."
    ]


def _sentence(k: int, comparison: Comparison, burst: Burst | None) -> str:
    log, fit, spread = comparison.log[k], comparison.mean[k], comparison.deviation[k]
    values = f"The {NAMES[k]} is {log:.3g} in the log and {fit:.3g} ± {spread:.2g} in the fit: "
    return values + _reason(k, log > fit, burst) + "."


def _reason(k: int, more: bool, burst: Burst | None) -> str:
    """What it means that the log has more, or less, of a statistic than the fit."""
    if k == RATE:
        return "the draws miss the mean rate; their bursts are so long that a log of this length is chance"
    if burst is None:
        if not more:
            return "its requests come more regularly than a Poisson process"
        return "its requests bunch, but too little or too seldom for the likelihood to ask for bursts"
    if k == GAPS:
        if more:
            return "its short and long gaps differ by more than the fitted bursts make them"
        return "its requests follow each other more evenly than Poisson ones within the fitted bursts"
    if k == PEAK:
        if more:
            return (
                "its busiest minute is beyond the fitted bursts; one ratio stands for bursts of all heights"
            )
        return "the fitted bursts reach higher rates than its busiest minute"
    window = WINDOWS_S[k - GAPS - 1]
    if window < burst.on_s:
        side = "bunch more" if more else "are more even"
        return f"its requests {side} within the fitted {burst.on_s:.3g} s on, or its bursts differ in height"
    if more:
        return f"some of its bursts last longer than the fitted {burst.on_s:.3g} s, or come in clusters"
    return "its bursts last more alike, or follow each other more regularly, than by chance"


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"

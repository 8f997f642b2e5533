"""Where the model does not fit a log, or the numbers say less than they seem to: sentences in plain words."""

from collections.abc import Iterator, Sequence

import numpy as np

from gpualloc_env.listing import listed
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.models import GPUS, REFERENCE_GPU
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.traces.log import Log, assign
from training.artifacts.policies import policy_file, training_of
from training.fitting.log_statistics import statistics
from training.fitting.request_streams import FEWEST_REQUESTS
from training.planning.subject import DAY_S, WINDOWS, Subject
from training.planning.sweep import Choice, Trial, untried

COARSE_S = 0.1  # stamps finer than this are not worth a word
NOTABLE = 0.01  # a fraction of the requests that is worth one
UNEVEN = 2.0  # between the rates of a log's halves


def caveats(
    subject: Subject,
    choice: Choice,
    trials: Sequence[Trial],
    unbroken: float,
    asked: float,
    *,
    priced: bool,
) -> list[str]:
    """All that apply, those about the log first.

    Args:
        subject: what was planned for.
        choice: the allocator to take.
        trials: everything that was played.
        unbroken: fraction of the requests within their objective in the first day, played without a break.
        asked: fraction of the requests that should be within their objective.
        priced: whether the price of a GPU was asked for.
    """
    return [
        *of_log(subject),
        *of_agents(subject),
        *of_memory(subject.scenario, choice.trial.gpus),
        *of_windows(subject, choice),
        *of_day(subject, choice, unbroken, asked),
        *of_choice(subject, choice, trials, asked, priced=priced),
    ]


def of_log(subject: Subject) -> Iterator[str]:
    """What the log does not tell."""
    log = subject.log
    if len(log.time_s) < FEWEST_REQUESTS:
        yield f"The log has {len(log.time_s)} requests: too few to plan by. Take a longer one."
    if log.span_s < DAY_S:
        yield (
            f"The log covers {duration(log.span_s)}, not a day. Nights, busier hours and weekends that it "
            "does not hold are not planned for."
        )
    if abs(subject.span_s / log.span_s - 1) > 1e-6:
        yield (
            f"The log's {duration(log.span_s)} are played in {duration(subject.span_s)} to reach the load "
            "asked for: pauses and bursts are that much shorter or longer than they were."
        )
    half = len(log.time_s) - int(np.searchsorted(log.time_s, log.span_s / 2))
    first = len(log.time_s) - half
    if max(first, half) > UNEVEN * max(1, min(first, half)):
        yield (
            f"The traffic is uneven: {first:,} requests in the first half of the log, {half:,} in the "
            "second. An average over both describes neither."
        )
    if log.quantum_s >= COARSE_S:
        yield (
            f"Requests share time stamps, which are multiples of {log.quantum_s:.3g} s. They are spread "
            "evenly over that time: bursts that are shorter do not show, and real waits are longer."
        )
    yield from (f"In the log: {note}." for note in log.notes)


def of_agents(subject: Subject) -> Iterator[str]:
    """Where agents and requests do not go together."""
    log, scenario = subject.log, subject.scenario
    names, platform = scenario.agent_names, scenario.platform
    assert scenario.trace is not None
    if log.agent is None:
        visits = assign(log, scenario.trace.assignment, names).shape[1]
        rule = "the first agent alone" if scenario.trace.assignment == "first-agent" else "by prompt length"
        each = f"each makes {visits} calls, at once" if visits > 1 else "each is one call"
        yield (
            f"The log names no agents, so its requests are given to {listed(names)}, {rule}: {each}. Give "
            "the log a column agent, or another --assignment, if your service works otherwise."
        )
    elif len(log.agent_names) < len(names):
        silent = [name for name in names if name not in log.agent_names]
        yield f"The log has no requests for {listed(silent)}; some allocators give them GPUs all the same."
    if scenario.service == "fluid":
        rates = ", ".join(f"{agent.name} {agent.throughput_rps:g}" for agent in scenario.agents)
        yield (
            f"Requests are served as a fluid, first come first served, at assumed speeds: {rates} requests/s "
            f"on a whole GPU (scenario {scenario.name}). Measure yours and write them into a scenario file: "
            "every number here is in proportion to them. There is no time to first token in a fluid."
        )
    else:
        models = listed(
            [f"{a.name} {a.model or 'of its own'} on {a.gpu or 'a GPU'}" for a in scenario.agents]
        )
        yield (
            f"Calls are served by {models} (scenario {scenario.name}); how their speed grows with a share "
            "of a GPU is assumed. If you serve other models, write a scenario file with yours."
        )
        yield from of_calls(subject)
    for name, demand in zip(names, subject.demand.tolist(), strict=True):
        if demand > platform.max_share and not scenario.nodes:
            yield (
                f"The work of agent {name} alone keeps {demand:.2g} GPUs busy, and one agent may hold "
                f"{platform.max_share:g}: its queue grows whatever the allocator does. Give --max-share."
            )
    if platform.max_share > 1:
        yield (
            "An agent is one server, also on more than one GPU: more GPUs speed it up as its curve says, "
            "which levels off at 1 + κ where it has a kappa. Replicas that share its queue are not played."
        )


def of_memory(scenario: Scenario, gpus: float) -> Iterator[str]:
    """Models that so many GPUs cannot hold; a pool has no limit of memory, a cluster has."""
    if scenario.nodes:
        return
    known = {agent.gpu for agent in scenario.agents if agent.gpu} or {REFERENCE_GPU}
    gpu = max(known, key=lambda name: GPUS[name].memory_mb)
    memory = GPUS[gpu].memory_mb
    weights = sum(agent.model_mb for agent in scenario.agents)
    caches = sum(agent.kv_tokens * agent.kv_mb_per_token for agent in scenario.agents)
    if weights + caches > gpus * memory:
        less = (
            "The weights alone do not fit there together."
            if weights > gpus * memory
            else "With smaller caches fewer calls run at once."
        )
        yield (
            f"The memory of GPUs is not modelled: the models have {weights / 1000:,.1f} GB of weights and "
            f"{caches / 1000:,.1f} GB of KV caches, when these are full, for {gpus:g} × {gpu} of "
            f"{memory / 1000:g} GB. {less} Take as many GPUs as hold your models, or plan on a cluster: "
            "it has memory."
        )


def of_calls(subject: Subject) -> Iterator[str]:
    """Calls that no allocator can serve as they should be."""
    log, scenario = subject.log, subject.scenario
    for agent, count in zip(scenario.agents, subject.oversized.tolist(), strict=True):
        if count:
            yield (
                f"{count} calls of agent {agent.name} are larger than its KV cache. They "
                f"are played as if it had room for {agent.kv_tokens:,} tokens; a real server refuses them."
            )
    assert log.output_tokens is not None
    silent = int(np.count_nonzero(log.output_tokens == 0))
    if silent:
        yield f"{silent} requests without output count as ones of 1 token."
    hopeless = alone(scenario, log)
    if hopeless > 0:
        yield (
            f"{100 * hopeless:.1f} % of the calls take longer than their objective even alone on a whole "
            f"GPU: no allocator can have more than {100 * (1 - hopeless):.1f} % within it. Give a longer "
            "--slo, or a faster model."
        )


def alone(scenario: Scenario, log: Log) -> float:
    """Fraction of the calls that take longer than their objective alone on a whole GPU."""
    assert scenario.trace is not None and log.prompt_tokens is not None and log.output_tokens is not None
    prompt, output = log.prompt_tokens, np.maximum(log.output_tokens, 1)
    visited = assign(log, scenario.trace.assignment, scenario.agent_names)
    late = 0
    for visit in visited.T:
        for i, agent in enumerate(scenario.agents):
            own = visit == i
            times = np.vectorize(agent.alone_s, otypes=[float])(prompt[own], output[own])
            late += int(np.count_nonzero(times > agent.slo_s)) if own.any() else 0
    return late / visited.size


def of_windows(subject: Subject, choice: Choice) -> Iterator[str]:
    """How far the numbers can be trusted."""
    scenario, metrics = subject.scenario, choice.trial.metrics
    attained = choice.trial.attainment
    count, length = len(metrics["arrived"]), scenario.steps * scenario.dt
    played, there = count * length, subject.span_s
    if played < 0.9 * there:
        yield (
            f"{count:,} windows of {length:g} s are played, {duration(played)} of {duration(there)}: every "
            "number here is of those."
        )
    if count == 1:
        yield "There is one window alone, which says nothing of chance: no number here has an interval."
    elif count < WINDOWS and attained.high - attained.low > NOTABLE:
        yield (
            f"The log has {count} windows of {length:g} s: intervals are wide, that of the chosen "
            f"allocator reaches from {100 * attained.low:.1f} % to {100 * attained.high:.1f} %."
        )
    left = float(metrics["unfinished"].sum() / max(1.0, metrics["arrived"].sum()))
    if left > NOTABLE:
        yield (
            f"{100 * left:.1f} % of the requests of the chosen allocator are unfinished when their window of "
            f"{length:g} s ends. They count with their age so far, as in time where it is within their "
            "objective. Longer windows (--steps) say more."
        )


def of_day(subject: Subject, choice: Choice, unbroken: float, asked: float) -> Iterator[str]:
    """What the windows do not show, which begin with empty queues."""
    if choice.meets and unbroken < asked:
        yield (
            f"Played for {duration(min(DAY_S, subject.span_s))} without a break, it has "
            f"{100 * unbroken:.1f} % of the requests within their objective, less than the {100 * asked:g} % "
            f"asked for, which the windows hold with {100 * choice.trial.attainment.mean:.1f} %: queues last "
            "longer than a window. Take one GPU more, or longer windows (--steps)."
        )


def of_choice(
    subject: Subject, choice: Choice, trials: Sequence[Trial], asked: float, *, priced: bool
) -> Iterator[str]:
    """What the choice rests on."""
    trial, platform = choice.trial, subject.scenario.platform
    policies = {each.policy for each in trials}
    if choice.meets and trial.attainment.low < asked:
        safe = min(
            (each for each in trials if each.attainment.low >= asked),
            key=lambda each: each.gpus,
            default=None,
        )
        yield (
            "Its mean is within what you ask for, but not all of its interval: other days may miss it. "
            + (
                f"{safe.label} on {safe.gpus:g} GPUs has all of it within."
                if safe
                else "No other that was tried is better there."
            )
        )
    if choice.meets and len(policies) > 1:
        yield (
            "The allocator was chosen on the windows on which it is shown, the best of "
            f"{len(policies)}: expect a little less of it on other days."
        )
    if trial.gpus == max(each.gpus for each in trials) > min(each.gpus for each in trials):
        held = np.inf if subject.scenario.nodes else len(subject.demand) * platform.max_share
        yield (
            f"No more than {trial.gpus:g} GPUs were tried"
            + (", all that the agents can hold." if trial.gpus >= held else "; list more with --sweep.")
        )
    if untried(trials, trial) is not None:
        fewer = max(each.gpus for each in trials if each.gpus < trial.gpus)
        yield f"Nothing was tried between {fewer:g} and {trial.gpus:g} GPUs; list more with --sweep."
    if trial.kind == "learned":
        yield from of_training(subject, trial)
    if not priced:
        yield (
            f"A GPU hour is taken to cost ${subject.usd_per_gpu_hour:g}, which the scenario assumes; give "
            "--usd-per-gpu-hour. Billed are the shares held, as on a serverless platform; whoever rents "
            "whole GPUs pays for all of them."
        )


def of_training(subject: Subject, trial: Trial) -> Iterator[str]:
    """On what the chosen allocator was trained."""
    file = policy_file(trial.given)
    trained = training_of(trial.given)
    if trial.seeds > 1:
        yield f"Its numbers are means over {trial.seeds} training seeds; the file to take is {file.name}."
    try:
        source = load_scenario(trained["scenario"], trace=trained.get("trace"))
        log = source.trace.path if source.trace is not None else None
    except ValueError:  # a scenario file that is no longer there
        log = None
    assert subject.scenario.trace is not None
    if log is None or log.name != subject.log.path.name:
        yield (
            f"The learned allocator was trained on the scenario {trained['scenario']}, not on your traffic. "
            "Run it in the shadow first."
        )
    elif subject.scenario.trace.split != "eval":
        yield (
            "The learned allocator was trained on windows of this log: what it gives on them looks too good. "
            "Ask for --split eval."
        )


def duration(seconds: float) -> str:
    """A time as people say it."""
    for unit, size in (("days", DAY_S), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def facts(subject: Subject) -> dict[str, float | str | None]:
    """What the log is, in numbers."""
    log = subject.log
    known = statistics(log.time_s, log.span_s)
    prompts = None if log.output_tokens is None else log.prompt_tokens  # else milliseconds of a GPU

    def tokens(values: object, quantile: float) -> float | None:
        return None if values is None else float(np.quantile(np.asarray(values), quantile))

    return {
        "name": log.path.name,
        "requests": len(log.time_s),
        "span_s": log.span_s,
        "rate_rps": known.rate_rps,
        "peak_over_mean_60s": None if np.isnan(known.peak_over_mean) else known.peak_over_mean,
        "dispersion_10s": None if np.isnan(known.dispersion_10s) else known.dispersion_10s,
        "prompt_tokens_p50": tokens(prompts, 0.5),
        "prompt_tokens_p95": tokens(prompts, 0.95),
        "output_tokens_p50": tokens(log.output_tokens, 0.5),
        "output_tokens_p95": tokens(log.output_tokens, 0.95),
        "gpus_busy": float(subject.demand.sum()),
    }

"""A plan as JSON holds it: everything that the page shows, in base units."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import AnyArray, Array
from training.evaluation.evaluate import Evaluation
from training.planning.subject import Subject
from training.planning.sweep import Choice, Trial, fewest, knee
from training.reporting.measures import COST, P95, SLO, Measure, measures

Record = Mapping[str, Any]
"""A plan, or a part of it."""
POINTS = 480
"""Of the curves of a day: the means over as many equal parts of it."""


def plan_record(
    subject: Subject, choice: Choice, trials: Sequence[Trial], day: Evaluation, asked: float
) -> dict[str, Any]:
    """What was planned for, what each allocator gives, the choice and a day of it.

    Args:
        subject: the log and its scenario.
        choice: the allocator to take.
        trials: everything that was played.
        day: the first day of the log under the allocator to take.
        asked: fraction of the requests that should be within their objective.
    """
    scenario = subject.scenario
    names = list(dict.fromkeys(each.policy for each in trials))
    by_policy = {name: [each for each in trials if each.policy == name] for name in names}
    return {
        "platform": {
            "scenario": scenario.name,
            "service": scenario.service,
            "gpus": subject.gpus,
            "usd_per_gpu_hour": subject.usd_per_gpu_hour,
            "agents": list(scenario.agent_names),
            "gpus_busy": subject.demand.tolist(),
        },
        "objective": {
            "attainment": asked,
            "slo_s": {agent.name: agent.slo_s for agent in scenario.agents},
        },
        "windows": {"count": len(trials[0].metrics["arrived"]), "length_s": scenario.steps * scenario.dt},
        "allocators": [allocator_record(subject, each, asked) for each in by_policy.values()],
        "choice": choice_record(subject, choice, asked),
        "day": day_record(day),
    }


def allocator_record(subject: Subject, trials: Sequence[Trial], asked: float) -> dict[str, Any]:
    """One allocator on platforms of every size."""
    enough = fewest(trials, asked)
    late = [1 - each.attainment.mean for each in trials]
    return {
        "policy": trials[0].policy,
        "label": trials[0].label,
        "kind": trials[0].kind,
        "gpus_needed": enough.gpus if enough else None,
        "knee_gpus": knee([each.gpus for each in trials], late),
        "sizes": [size_record(subject, each, asked) for each in trials],
    }


def size_record(subject: Subject, trial: Trial, asked: float) -> dict[str, Any]:
    """What one allocator gives on so many GPUs: means over all requests with intervals."""
    scenario = subject.scenario
    return {
        "gpus": trial.gpus,
        "load": float(subject.demand.sum()) / trial.gpus,
        "attainment": trial.attainment.record(),
        "meets": bool(trial.attainment.mean >= asked),
        "gpus_held": float(trial.metrics["gpu_seconds"].mean()) / (3600 * trial.hours),
        "usd_per_hour": trial.estimate(COST).record(),
        "usd_per_hour_of_all_gpus": trial.gpus * subject.usd_per_gpu_hour,
        "metrics": {each.metric: trial.estimate(each).record() for each in beside_slo(scenario)},
    }


def beside_slo(scenario: Scenario) -> list[Measure]:
    """What is shown of an allocator besides the requests in time and the bill."""
    known = [each for each in measures(scenario) if each not in (SLO, COST)]
    return known if P95 in known else [P95, *known]


def choice_record(subject: Subject, choice: Choice, asked: float) -> dict[str, Any]:
    """The allocator to take, and how it differs from the next best."""
    rival, cheap = choice.rival, choice.bargain
    return {
        "policy": choice.trial.policy,
        "label": choice.trial.label,
        "kind": choice.trial.kind,
        "gpus": choice.trial.gpus,
        "meets": choice.meets,
        "sure": choice.sure,
        "next_best": rival
        and {
            "policy": rival.trial.policy,
            "label": rival.trial.label,
            "attainment_difference": rival.attainment.record(),
            "usd_per_hour_difference": rival.bill.record(),
        },
        "bargain": cheap
        and {"policy": cheap.policy, "label": cheap.label, **size_record(subject, cheap, asked)},
    }


def day_record(day: Evaluation) -> dict[str, Any]:
    """Shares and requests over the first day of the log, or over all of a shorter one."""
    dt, first = day.scenario.dt, day.steps.first
    edges = np.unique(np.linspace(0, len(first), min(POINTS, len(first)) + 1).round().astype(np.int64))

    def means(values: AnyArray) -> list[float]:
        sums: Array = np.add.reduceat(values, edges[:-1])
        return (sums / np.diff(edges)).round(6).tolist()

    def by_agent(name: str) -> Iterable[tuple[str, list[float]]]:
        return zip(day.scenario.agent_names, map(means, first[name].T), strict=True)

    came, names = first["arrivals"].sum(axis=1), day.scenario.agent_names
    return {
        "span_s": len(first) * dt,
        "start_s": (edges[:-1] * dt).tolist(),
        "share_gpus": dict(by_agent("share")),
        "requests_rps": [value / dt for value in means(came)],
        "waiting_requests": means(first["backlog"].sum(axis=1)),
        "attainment": day.metrics[0]["slo_attainment"],
        "latency_p95_s": day.metrics[0]["latency_p95_s"],
        "latency_p99_s": day.metrics[0]["latency_p99_s"],
        "usd": day.metrics[0]["cost_usd"],
        "models_by_gpu": None if day.steps.resident is None else standing(day.steps.resident, names),
    }


def standing(resident: AnyArray, names: Sequence[str]) -> list[list[str]]:
    """The models that each GPU holds, of (N, K) bool."""
    return [[names[i] for i in np.flatnonzero(column).tolist()] for column in resident.T]


def chosen(record: Record) -> Record:
    """What the allocator to take gives on its platform."""
    choice = record["choice"]
    sizes = next(each["sizes"] for each in record["allocators"] if each["policy"] == choice["policy"])
    return next(each for each in sizes if each["gpus"] == choice["gpus"])

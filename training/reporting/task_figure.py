"""One task on its way through the agents, call by call, under each policy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context

from gpualloc_env.simulation.state import AnyArray
from training.evaluation.evaluate import Evaluation
from training.reporting.figure_style import STYLE, Page, policy_style, save
from training.reporting.report import ranked

SHOWN_POLICIES = 5
WAITS = "#C9CED6"


def example(evaluations: Sequence[Evaluation]) -> int | None:
    """The task of the first episode with the most stages, of those that all policies finished.

    None where no task has several calls, or none was finished by all.
    """
    calls = [each.steps.calls for each in evaluations if each.steps.calls is not None]
    if not calls:
        return None
    task, stage = calls[0]["task"], calls[0]["stage"]
    finished = np.all([np.isfinite(each["finished"]) for each in calls], axis=0)
    done = np.bincount(task, ~finished) == 0
    stages = np.where(done & (np.bincount(task) > 1), np.bincount(task, stage), 0)
    return int(stages.argmax()) if stages.any() else None


def draw_task(path: Path, evaluations: Sequence[Evaluation], task: int, seed: int) -> None:
    """Draw the calls of a task as PNG and SVG: grey until its first token, then in the policy's colour."""
    order = ranked(evaluations)[:SHOWN_POLICIES]
    scenario = order[0].scenario
    own: list[AnyArray] = []
    for each in order:
        assert each.steps.calls is not None
        own.append(each.steps.calls[each.steps.calls["task"] == task])
    # The first stage is issued `after_s` after the task's arrival.
    arrived = float((own[0]["issued"] - own[0]["after_s"]).min())
    span = max(float(calls["finished"].max()) for calls in own) - arrived
    height = 0.24 * len(scenario.agents)
    with rc_context(STYLE):
        page = Page.of(10.0, 0.9 + len(order) * (height + 0.55))
        page.text(0.1, 0.08, f"{scenario.name}: one task, seed {seed}", fontsize=12, fontweight="bold")
        page.text(0.1, 0.36, "grey: waits for its first token; coloured: its tokens; gaps: tools and people")
        for k, (each, calls) in enumerate(zip(order, own, strict=True)):
            colour, _ = policy_style(k)
            axes = page.axes(1.5, 0.95 + k * (height + 0.55), 8.3, height)
            for agent, issued, first, end in calls[["agent", "issued", "first_token", "finished"]].tolist():
                axes.barh(agent, first - issued, 0.7, issued - arrived, color=WAITS)
                axes.barh(agent, end - first, 0.7, first - arrived, color=colour)
            last = float(calls["finished"].max()) - arrived
            axes.axvline(last, color=colour, linestyle=":")
            axes.set_title(f"{each.label}: {last:.1f} s", color=colour)
            axes.set_yticks(range(len(scenario.agents)), scenario.agent_names)
            axes.set(xlim=(0, 1.02 * span), ylim=(len(scenario.agents) - 0.5, -0.5))
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x")
            if each is order[-1]:
                axes.set_xlabel("time since the task arrived [s]")
        save(page.figure, path)

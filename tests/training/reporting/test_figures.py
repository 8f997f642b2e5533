"""Whether a person can read the figures: no two texts meet, and all are large enough."""

from dataclasses import replace
from itertools import combinations, islice
from warnings import catch_warnings

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from baselines import POLICIES
from gpualloc_env.scenario.loading import load_scenario
from training.evaluation.evaluate import evaluate
from training.evaluation.headroom import with_headroom
from training.reporting.figures import comparison, groups, measures_card, result_card
from training.reporting.report import ranked
from training.reporting.task_figure import draw_task, example

WIDTH, SMALLEST = 1000, 9  # [pixels] of the picture, and of its lowest line of text


def played(scenario, policies, episodes=2, **changes):
    world = load_scenario(scenario, **changes)
    return [evaluate(name, POLICIES[name], world, episodes, seed=0) for name in policies]


def text_boxes(figure):
    """Boxes of the visible texts, where the figure is 1,000 pixels wide."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(WIDTH / figure.get_figwidth())
    canvas.draw()
    texts = [*figure.texts]
    for axes in figure.axes:
        texts += [axes.title, axes._left_title, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            # Labels of ticks beyond the limits are there, and not drawn.
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [axis.label, *(label for tick in ticks for label in (tick.label1, tick.label2))]
    shown = [text for text in texts if text.get_visible() and text.get_text().strip()]
    return {text: Text.get_window_extent(text, canvas.get_renderer()) for text in shown}


def check_readable(figure):
    boxes = text_boxes(figure)
    width, height = figure.get_size_inches() * figure.get_dpi()
    for (one, box), (other, beside) in combinations(boxes.items(), 2):
        beneath = box.y1 <= beside.y0 + 1 or beside.y1 <= box.y0 + 1
        assert beneath or box.x1 <= beside.x0 or beside.x1 <= box.x0, (
            f"{one.get_text()!r} meets {other.get_text()!r}"
        )
    for text, box in boxes.items():
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height, text.get_text()
        lines = text.get_text().count("\n") + 1
        assert text.get_rotation() or box.height / lines >= SMALLEST, text.get_text()


@pytest.mark.parametrize(("scenario", "count"), [("paper", 2), ("team", 4)])
def test_no_text_meets_another(scenario, count):
    evaluations = played(scenario, islice(POLICIES, count), steps=20)
    bounds = np.full(2, min(each.by_seed.min() for each in evaluations) - 0.1)
    evaluations = with_headroom(evaluations, bounds)
    check_readable(comparison(evaluations, seed=0))
    check_readable(result_card(ranked(evaluations), None, ["ppo-cluster-hierarchical passed " * 5]))
    check_readable(measures_card(ranked(evaluations)))


@pytest.mark.slow
def test_twenty_policies_of_sixty_four_agents_are_legible():
    few = played("fleet", ("static", "adaptive", "cmu", "receding-horizon"), steps=20)
    twenty = [
        replace(
            few[k % 4],
            policy=f"ppo-residual-serverless-{k}",
            by_seed=few[k % 4].by_seed + np.full((5, 1), k / 50),
        )
        for k in range(20)
    ]
    assert all(each.label.endswith("(5 seeds)") for each in twenty)
    with catch_warnings(record=True) as warned:
        check_readable(comparison(twenty, seed=0))
        for card in (result_card(ranked(twenty), None, ["One more."]), measures_card(ranked(twenty))):
            width, height = card.get_size_inches()
            assert width > 1.8 * height  # TensorBoard scales pictures to 200 pixels of height
    assert not warned


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["serverless", "bursty", "workflow", "llm", "magentic", "fleet"])
def test_every_baseline_is_legible(scenario):
    check_readable(comparison(played(scenario, POLICIES, steps=60), seed=0))


def test_many_agents_are_grouped_by_kind():
    fleet = load_scenario("fleet")
    kinds = groups(fleet, np.ones(64))
    assert {name: len(members) for name, members in kinds.items()} == dict.fromkeys(
        ("coordinator", "nlp", "vision", "reasoning"), 16
    )
    assert [fleet.agent_names[i] for i in kinds["nlp"][:2]] == ["nlp-1", "nlp-2"]


def test_a_task_that_all_policies_finished_is_drawn(tmp_path):
    evaluations = played("team", ("static", "receding-horizon"))
    task = example(evaluations)
    calls = [each.steps.calls[each.steps.calls["task"] == task] for each in evaluations]
    assert all(np.isfinite(own["finished"]).all() and len(own) > 1 for own in calls)
    draw_task(tmp_path / "task.png", evaluations, task, seed=0)
    assert (tmp_path / "task.svg").stat().st_size > 1000
    assert example(played("paper", ("static",), steps=5)) is None

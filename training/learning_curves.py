"""Draw learning curves of training runs: J in validation over steps and over seconds, beside the baselines.

python -m training.learning_curves --runs runs/ppo runs/ppo-residual --out learning-curves.png
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpualloc_env.simulation.state import Array
from training.artifacts.policies import named, seed_runs
from training.artifacts.training_record import VALIDATION, TrainingRecord, read_record
from training.cli import run
from training.files.run_directory import TENSORBOARD
from training.reporting.figure_style import STYLE, check_figure, policy_style, save, spans_decades, spread
from training.reporting.report import write_json

EVENTS = "events.out.tfevents.*"
LABEL_GAP = 0.055
"""Between the names of neighbouring lines, as a part of the height."""


class Curve(NamedTuple):
    """J in validation of one allocator, a row for each training seed."""

    steps: Array
    """(V,) trained when it was validated."""
    objective: Array
    """(S, V)."""
    seconds: Array | None
    """(S, V) since the first validation, by the clock; None where a run was interrupted."""


@dataclass(frozen=True)
class LearningCurvesConfig:
    """Draw how allocators learn, over steps and over seconds."""

    runs: tuple[Path, ...]
    """Finished training runs, each of one seed or of several."""
    out: Path = Path("learning-curves.png")
    """The figure; the numbers are beside it as .json."""


def main(config: LearningCurvesConfig) -> None:
    """Read the runs, draw their curves, write their numbers."""
    check_figure(config.out)
    scenarios = {str(path): record_of(path).scenario for path in config.runs}
    if len(set(scenarios.values())) > 1:
        listed = ", ".join(f"{path} on {scenario}" for path, scenario in scenarios.items())
        raise ValueError(f"curves can be compared on one scenario alone, got {listed}")
    curves = {
        name: read_curve(seed_runs(Path(given)) or [Path(given)])
        for name, given in named(list(scenarios)).items()
    }
    levels = record_of(config.runs[0]).levels
    draw(config.out, next(iter(scenarios.values())), curves, levels)
    content = {"baselines": levels, "curves": {name: as_lists(curve) for name, curve in curves.items()}}
    write_json(config.out.with_suffix(".json"), content)
    print(f"{config.out}: {', '.join(curves)}")


def record_of(run: Path) -> TrainingRecord:
    """What a run says of itself.

    Raises:
        ValueError: there is no finished run.
    """
    record = read_record(run)
    if record is None:
        raise ValueError(f"{run} holds no finished training run; give one that `training.train` has written")
    return record


def read_curve(runs: Sequence[Path]) -> Curve:
    """The validations of an allocator's runs, as many as all of them have.

    Raises:
        ValueError: a run is unfinished, was never validated, or was validated at other steps.
    """
    points = [np.array(record_of(each).curve, dtype=np.float64) for each in runs]
    count = min(map(len, points))
    if not count or any((each[:count, 0] != points[0][:count, 0]).any() for each in points):
        raise ValueError(
            f"the runs of {runs[0].parent} were not validated at the same steps; train all of them with one "
            "--validate-every"
        )
    times = [wall_times(each) for each in runs]
    known = [each[:count] - each[0] for each in times if each is not None and len(each) >= count]
    seconds = np.stack(known) if len(known) == len(runs) else None
    return Curve(points[0][:count, 0], np.stack([each[:count, 1] for each in points]), seconds)


def wall_times(run: Path) -> Array | None:
    """When each validation of a run was, by the clock [s]; None where it was interrupted."""
    for directory in sorted({path.parent for path in (run / TENSORBOARD).rglob(EVENTS)}):
        events = EventAccumulator(str(directory)).Reload()
        tags = [tag for tag in events.Tags()["scalars"] if tag.endswith(VALIDATION)]
        # The level of a baseline has nothing else.
        if tags and len(events.Tags()["scalars"]) > 1:
            segments = len(list(directory.glob(EVENTS)))
            return np.array([each.wall_time for each in events.Scalars(tags[0])]) if segments == 1 else None
    return None


def as_lists(curve: Curve) -> dict[str, Any]:
    """A curve as JSON has it."""
    seconds = None if curve.seconds is None else curve.seconds.round(2).tolist()
    return {
        "steps": curve.steps.astype(int).tolist(),
        "objective": curve.objective.round(5).tolist(),
        "seconds": seconds,
    }


def draw(path: Path, scenario: str, curves: Mapping[str, Curve], levels: Mapping[str, float]) -> None:
    """Draw the mean over training seeds and the range between the worst and the best, twice."""
    values = np.concatenate([*(each.objective.ravel() for each in curves.values()), [*levels.values()]])
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        axes: list[Axes] = list(figure.subplots(1, 2, sharey=True))
        titles = f"{scenario}: J in validation over steps", "over seconds of training"
        for panel, title, label in zip(axes, titles, ("steps", "seconds"), strict=True):
            panel.set(title=title, xlabel=label)
            panel.grid(axis="y")
            for level in levels.values():
                panel.axhline(level, color="#777777", linewidth=0.8, linestyle="--")
        if values.min() > 0 and spans_decades(values):
            axes[0].set_yscale("log")
            for of_axis in (axes[0].yaxis.set_major_formatter, axes[0].yaxis.set_minor_formatter):
                of_axis(FormatStrFormatter("%g"))
        axes[0].set_ylabel("J, lower is better")
        for rank, curve in enumerate(curves.values()):
            colour, marker = policy_style(rank)
            for panel, places in ((axes[0], curve.steps), (axes[1], curve.seconds)):
                if places is None:
                    continue
                across = places if places.ndim == 1 else places.mean(axis=0)
                mean, low, high = (f(curve.objective, axis=0) for f in (np.mean, np.min, np.max))
                panel.fill_between(across, low, high, color=colour, alpha=0.2, linewidth=0)
                panel.plot(across, mean, color=colour, marker=marker, markersize=3, linewidth=1.2)
        name_lines(axes[1], curves, levels)
        save(figure, path)


def name_lines(axes: Axes, curves: Mapping[str, Curve], levels: Mapping[str, float]) -> None:
    """Write the names of lines and levels at the right, each where its line ends, as far as there is room."""
    names = [
        (float(curve.objective.mean(axis=0)[-1]), name, policy_style(rank)[0])
        for rank, (name, curve) in enumerate(curves.items())
    ]
    names += [(level, name, "#555555") for name, level in levels.items()]
    names.sort()
    to_axes = axes.transData + axes.transAxes.inverted()
    axes.figure.canvas.draw()
    heights = np.array([to_axes.transform((axes.get_xlim()[1], value))[1] for value, _, _ in names])
    for (_, name, colour), at, height in zip(names, heights, spread(heights, LABEL_GAP, 1.0), strict=True):
        axes.annotate(
            name, (1.0, at), (1.06, height), xycoords="axes fraction", color=colour, va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5},
        )  # fmt: skip


if __name__ == "__main__":
    run(main, LearningCurvesConfig)

"""Figures of a leaderboard: the headroom that each policy closes, power, and performance profiles."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from gpualloc_env.simulation.state import Array
from training.evaluation.statistics import episodes_needed
from training.evaluation.verdicts import headroom_closed
from training.reporting.figure_style import POLICY_COLOURS, STYLE, save
from training.reporting.heatmap import Cells, draw_table
from training.reporting.leaderboard_report import MARKS, Board, Row

EFFECTS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Relative differences of J in the figure of power."""


def draw_headroom(path: Path, boards: Mapping[str, Board]) -> None:
    """Draw the share of the headroom over Algorithm 1 that each policy closes, with its verdict, as PNG."""
    # Scenarios in which Algorithm 1 leaves nothing to gain have no headroom to share.
    shown = {name: board for name, board in boards.items() if not np.isnan(board.rows[0].headroom_closed)}
    played = {name: {row.entry.label: row for row in board.rows} for name, board in (shown or boards).items()}
    rows = list(dict.fromkeys(name for each in played.values() for name in each))
    closed = np.array(
        [[each[row].headroom_closed if row in each else np.nan for each in played.values()] for row in rows]
    )
    order = (
        np.argsort(-np.nanmean(np.clip(closed, -1, 1), axis=1), kind="stable") if shown else range(len(rows))
    )
    closed, rows = closed[order], [rows[k] for k in order]
    texts = [
        [_percent(each[row]) if row in each and shown else "" for each in played.values()] for row in rows
    ]
    best = np.max(np.where(np.isnan(closed), -np.inf, closed), axis=0)
    shade = 0.5 - np.clip(closed, -1, 1) / 2
    ticks = {0.0: "100 %, the bound", 0.5: "0 %, Algorithm 1", 1.0: "−100 % or less"}
    title = "Headroom over Algorithm 1 closed; + wins, = ties, − loses against it"
    draw_table(path, Cells(rows, list(played), shade, texts, closed == best), title, ticks)


def _percent(row: Row) -> str:
    closed = f"{100 * row.headroom_closed:.0f} %" if row.headroom_closed > -10 else "≪ 0 %"
    return f"{closed} {MARKS[row.against_adaptive]}"


def draw_power(path: Path, boards: Mapping[str, Board]) -> None:
    """Draw how many episodes see which difference to Algorithm 1 in four cases out of five, as PNG.

    The deviation and the direction are those of the paired differences of the best online baseline, or of
    the second policy where Algorithm 1 itself is the best.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 5.2), layout="constrained")
        axes = figure.add_subplot()
        varied = {name: board for name, board in boards.items() if len(board.bounds) > 1}
        for k, (name, board) in enumerate(varied.items()):
            differences = _differences(board)
            if differences is None or differences.std(ddof=1) <= 1e-12 * abs(board.adaptive.mean):
                continue
            effects = np.copysign(np.array(EFFECTS) * board.adaptive.mean, differences.mean())
            needed = [episodes_needed(differences, effect, board.comparisons) for effect in effects]
            style = "-" if k < len(POLICY_COLOURS) else "--"
            colour = POLICY_COLOURS[k % len(POLICY_COLOURS)]
            axes.plot(100 * np.array(EFFECTS), needed, style, marker="o", color=colour, label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks([100 * effect for effect in EFFECTS], [f"{100 * effect:g}" for effect in EFFECTS])
        axes.yaxis.set_major_formatter("{x:,.0f}")  # a power of ten would be markup
        axes.minorticks_off()
        axes.set_xlabel("difference of J [% of Algorithm 1's], log scale")
        axes.set_ylabel("episodes, log scale")
        axes.grid()
        if axes.lines:
            axes.legend(loc="upper right")
        else:
            axes.set_title("no second policy, or one episode: nothing to tell apart", loc="right", fontsize=9)
        axes.set_title("Episodes that tell a difference from Algorithm 1, power 80 %")
        axes.annotate(
            "deviation of the best baseline's paired differences,\ncorrected for all comparisons of a table",
            (0.02, 0.02),
            xycoords="axes fraction",
            color="dimgrey",
        )
        save(figure, path)


def _differences(board: Board) -> Array | None:
    """J less that of Algorithm 1 by episode, (E,); None where it is alone."""
    others = [row.entry for row in board.rows if row.entry is not board.adaptive]
    if not others:
        return None
    other = others[0] if board.best_baseline is board.adaptive else board.best_baseline
    return other.objective.mean(axis=0) - board.adaptive.objective[0]


def draw_profiles(path: Path, boards: Mapping[str, Board]) -> None:
    """Draw the share of runs (training seed and scenario) that close at least so much headroom, as PNG.

    The band is the 95 % interval when training seeds are drawn anew within each scenario.
    Source: Agarwal et al., "Deep reinforcement learning at the edge of the statistical
    precipice", NeurIPS 2021.
    """
    thresholds = np.linspace(-1, 1, 201)
    generator = np.random.default_rng(0)
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot()
        for k, (name, scores) in enumerate(_scores(boards).items()):
            above = [(score[:, None] >= thresholds).astype(np.float64) for score in scores]  # (S, thresholds)
            share = np.mean([each.mean(axis=0) for each in above], axis=0)
            draws = np.mean(
                [each[generator.integers(len(each), size=(2000, len(each)))].mean(axis=1) for each in above],
                axis=0,
            )
            low, high = np.quantile(draws, [0.025, 0.975], axis=0)
            colour = POLICY_COLOURS[k % len(POLICY_COLOURS)]
            axes.plot(100 * thresholds, share, color=colour, label=name)
            axes.fill_between(100 * thresholds, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
        axes.set_xlabel("headroom over Algorithm 1 closed, τ [%]")
        axes.set_ylabel("share of runs that close at least τ")
        axes.set_ylim(0, 1.02)
        axes.grid()
        axes.legend(loc="lower left")
        axes.set_title("Performance profiles of learned policies, over training seeds and scenarios")
        save(figure, path)


def _scores(boards: Mapping[str, Board]) -> dict[str, list[Array]]:
    """Headroom closed by each training seed, (S,), of each learned policy in each scenario that has some."""
    scores: dict[str, list[Array]] = {}
    for board in boards.values():
        for entry in board.entries:
            if entry.kind != "learned":
                continue
            runs = entry.objective.mean(axis=1).tolist()
            closed = np.array([headroom_closed(run, board.adaptive.mean, board.bound) for run in runs])
            if not np.isnan(closed).any():
                scores.setdefault(entry.label, []).append(closed)
    return scores

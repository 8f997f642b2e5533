"""What a finished training run says of itself: its settings, and J in validation as it learned."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.artifacts.policies import seed_runs
from training.files.run_directory import CONFIG, RESULT, read_json

VALIDATION = "1 J in validation (lower is better)"
"""What the validation curve is called in TensorBoard, after the group of the run."""
SETTINGS = (
    *("allocator", "total_steps", "seed", "num_envs", "rollout_steps", "batch_size", "epochs"),
    *("learning_rate", "gamma", "gae_lambda", "hidden", "initial_std"),
)


@dataclass(frozen=True)
class TrainingRecord:
    """A training run beside the baselines on the same validation episodes."""

    settings: dict[str, Any]
    curve: list[tuple[int, float]] = field(default_factory=list)
    """Steps trained, and the mean J in validation after them."""
    levels: dict[str, float] = field(default_factory=dict)
    """J of baselines on the same episodes."""
    scenario: str = ""
    """On which it was trained."""

    @property
    def lowest(self) -> float | None:
        """J of the best validation; None where there was none."""
        return min((objective for _, objective in self.curve), default=None)

    @property
    def best_level(self) -> str | None:
        """The baseline with the lowest J."""
        return min(self.levels, key=self.levels.__getitem__, default=None)

    def passed(self, baseline: str | None) -> int | None:
        """The first validated step at which J is below a baseline's; None where it never is."""
        level = self.levels.get(baseline or "", float("-inf"))
        return next((step for step, objective in self.curve if objective < level), None)


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that tables list, of its whole configuration."""
    return {name: config[name] for name in SETTINGS if config.get(name) is not None}


def read_record(directory: Path) -> TrainingRecord | None:
    """The record of a run's directory, of the first where it holds several seeds; None of anything else."""
    run = next((path for path in (directory, *seed_runs(directory)) if (path / RESULT).is_file()), None)
    if run is None:
        return None
    config = read_json(run / CONFIG)["config"]
    validation = read_json(run / RESULT).get("validation", {})
    return TrainingRecord(
        settings_of(config),
        [(point["step"], point["objective"]) for point in validation.get("curve", ())],
        validation.get("baselines", {}),
        config["scenario"],
    )

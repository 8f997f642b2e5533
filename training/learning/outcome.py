"""What a finished training run leaves: the allocator, and how it was chosen."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stable_baselines3 import PPO

from training.evaluation.seeds import FIRST_VALIDATION_SEED
from training.files.atomic import write_atomically
from training.files.run_directory import MODEL, RESULT, TRANSFORM
from training.learning.allocators.action_transform import Transform
from training.learning.selection import Selection


def write_outcome(
    out: Path,
    model: PPO,
    transform: Transform,
    selection: Selection,
    *,
    baselines: Mapping[str, float],
    stopped_early: bool,
) -> None:
    """Write the best policy, or the last one where none was validated; `result.json`, last, says which."""
    result: dict[str, Any] = {"model": "the last policy", "stopped_early": stopped_early}
    if selection.best is not None and selection.weights is not None:
        step, objective = selection.best
        model.policy.load_state_dict(selection.weights)
        result["model"] = "the best policy in validation"
        result["best"] = {"step": step, "objective": objective}
        result["validation"] = {
            "first_seed": FIRST_VALIDATION_SEED,
            "baselines": dict(baselines),
            "curve": [{"step": step, "objective": objective} for step, objective in selection.curve],
        }
    file = io.BytesIO()
    model.save(file)
    write_atomically(out / MODEL, file.getvalue())
    write_atomically(out / TRANSFORM, json_bytes(asdict(transform)))
    write_atomically(out / RESULT, json_bytes(result))


def json_bytes(content: dict[str, Any]) -> bytes:
    """As the file holds it."""
    return (json.dumps(content, indent=2) + "\n").encode()

"""What training logs and keeps while it runs."""

from collections import defaultdict
from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, CheckpointCallback

UNITS = {
    "latency": "latency [s]",
    "cost": "cost [fraction of the platform]",
    "throughput": "throughput [fraction of the offered rate]",
    "slo": "late [fraction of the offered rate]",
    "shortfall": "minimum-share shortfall [fraction]",
}


class EpisodeLog(BaseCallback):
    """Means over the episodes that ended since the last update, in units that TensorBoard names."""

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[str, list[float]] = defaultdict(list)

    def _on_step(self) -> bool:
        if self.locals["dones"].any():
            for info in self.locals["infos"]:
                if "episode" not in info:
                    continue
                self._values["episode/objective J (lower is better)"].append(info["objective"])
                for term, value in info["terms"].items():
                    self._values[f"episode/{UNITS[term]}"].append(value)
                for agent, share in info["shares"].items():
                    self._values[f"share [GPU]/{agent}"].append(share)
        return True

    def _on_rollout_end(self) -> None:
        for name, values in self._values.items():
            self.logger.record(name, float(np.mean(values)))
        self._values.clear()


def callbacks(out: Path, checkpoint_every: int, num_envs: int) -> CallbackList:
    """Log the episodes, and save the model with its reward normaliser every so many steps."""
    checkpoint = CheckpointCallback(
        save_freq=max(1, checkpoint_every // num_envs),
        save_path=str(out / "checkpoints"),
        name_prefix="ppo",
        save_vecnormalize=True,
    )
    return CallbackList([EpisodeLog(), checkpoint])

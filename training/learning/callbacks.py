"""What training logs and keeps while it runs."""

from collections import defaultdict
from collections.abc import Callable
from typing import cast

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from training.learning.allocators.allocator_policy import AllocatorPolicy
from training.learning.selection import Selection

UNITS = {
    "latency": "latency [s]",
    "cost": "cost [fraction of the platform]",
    "throughput": "throughput [fraction of the offered rate]",
    "slo": "late [fraction of the offered rate]",
    "shortfall": "minimum-share shortfall [fraction]",
    "task": "time of a task [s]",
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


class Boundaries(BaseCallback):
    """Between two updates: validate, keep a checkpoint, stop a run that no longer gains."""

    def __init__(
        self,
        selection: Selection,
        *,
        validate_every: int,
        validate: Callable[[PPO], float],
        record: Callable[[int, float], None],
        checkpoint_every: int = 0,
        patience: int = 0,
        keep: Callable[[PPO], None] = lambda _: None,
        show: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Watch a run.

        Args:
            selection: what it has chosen so far.
            checkpoint_every: steps between two checkpoints; 0 for none.
            validate_every: steps between two validations; 0 for none.
            patience: validations without a gain after which to stop; 0 for never.
            validate: the objective of a model.
            record: told the steps trained and the objective, after each validation is in the selection.
            keep: saves a checkpoint of a model.
            show: told the steps trained, after each update.
        """
        super().__init__()
        self._selection = selection
        self._checkpoint_every, self._validate_every = checkpoint_every, validate_every
        self._patience = patience
        self._validate, self._record, self._keep, self._show = validate, record, keep, show
        self._last = 0  # boundary, in steps

    @property
    def stopped(self) -> bool:
        """Whether validation has not improved for too long; follows from the curve alone."""
        return 0 < self._patience <= self._selection.without_gain

    def _on_training_start(self) -> None:
        self._last = self.model.num_timesteps
        if self._last == 0 and self._validate_every > 0:
            self._measure(0)

    def _on_rollout_start(self) -> None:
        self._pass()

    def _on_step(self) -> bool:
        # The boundary itself cannot end training; the step after it can, and leaves the weights alone.
        return not self.stopped

    def _on_training_end(self) -> None:
        if not self.stopped:
            self._pass(final=True)

    def _pass(self, final: bool = False) -> None:
        """Do what is due; nothing at the boundary from which the run was continued."""
        step, last = self.model.num_timesteps, self._last
        if step == last:
            return

        def due(every: int) -> bool:
            return every > 0 and (final or step // every > last // every)

        if due(self._validate_every):
            self._measure(step)
        if due(self._checkpoint_every) or self.stopped:
            self._keep(cast(PPO, self.model))
        self._last = step
        self._show(step)

    def _measure(self, step: int) -> None:
        """Validate the policy; the untrained one too, which a run must not end below."""
        objective = self._validate(cast(PPO, self.model))
        self._selection.add(step, objective, self.model)
        self._record(step, objective)


class CriticFirst(BaseCallback):
    """Leave the actor as it is for the first updates: it should not follow a critic that knows nothing."""

    def __init__(self, updates: int) -> None:
        super().__init__()
        self._updates = updates

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        model = cast(PPO, self.model)
        done = model.num_timesteps // (model.n_steps * model.n_envs)
        for parameter in cast(AllocatorPolicy, model.policy).actor_parameters:
            parameter.requires_grad_(done >= self._updates)

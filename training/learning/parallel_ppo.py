"""PPO as stable-baselines3 has it, faster: each gradient step is shared by processes."""

import inspect
import mmap
import multiprocessing
import os
import signal
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any, Self

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.utils import explained_variance
from torch import Tensor

LOSSES = ("policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction")
"""What is logged of the gradient steps, as stable-baselines3 names it."""
_adam_step: Any = inspect.unwrap(torch.optim.Adam.step)


class Adam(torch.optim.Adam):
    """torch's Adam in one kernel, and without the second that importing torch's compiler takes."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings, fused=True)

    def step(self, closure: None = None) -> None:  # pyright: ignore
        """Take a step along the gradients."""
        with torch.no_grad():
            _adam_step(self, closure)

    # What is wrapped in these imports the compiler.
    zero_grad: Any = inspect.unwrap(torch.optim.Adam.zero_grad)
    add_param_group: Any = inspect.unwrap(torch.optim.Adam.add_param_group)
    state_dict: Any = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict: Any = inspect.unwrap(torch.optim.Adam.load_state_dict)


class ParallelPPO(PPO):
    """PPO whose minibatches are cut into shards, each but the first with a process of its own.

    The gradient of a minibatch is the sum of those of its shards, in their order, wherever they are
    computed: results depend on how many shards there are, not on how many cores.
    """

    def __init__(
        self,
        *arguments: Any,
        shards: int = 1,
        update_device: str = "cpu",
        helpers: bool = True,
        **settings: Any,
    ) -> None:
        """As for `PPO`, which plays on a CPU.

        Args:
            arguments: of `PPO`.
            shards: of each minibatch.
            update_device: where the policy is while it is updated.
            helpers: whether other processes may be started.
            settings: of `PPO`.
        """
        self.shards, self.update_device, self.helpers = shards, update_device, helpers
        self._team: Team | None = None
        super().__init__(*arguments, **settings, device="cpu")

    def learn(self, *arguments: Any, **settings: Any) -> Self:
        """Learn, with helpers until the end."""
        # Losses are checked after each update; torch would check every distribution.
        torch.distributions.Distribution.set_default_validate_args(False)
        with Team(self) as self._team:
            return super().learn(*arguments, **settings)

    def train(self) -> None:
        """Update the policy with what was played since the last update.

        Raises:
            FloatingPointError: the losses are no longer numbers.
        """
        assert self._team is not None
        team, clip_range = self._team, self.clip_range
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        clip = clip_range(self._current_progress_remaining)  # pyright: ignore
        self._move(self.update_device)
        team.take(next(self.rollout_buffer.get()))
        losses, steps = torch.zeros(len(LOSSES), device=self.update_device), 0
        for _ in range(self.n_epochs):
            team.shuffle()
            for start in range(0, team.count, self.batch_size):
                losses += team.differentiate(start, start + self.batch_size, clip)
                team.gradient.mul_((self.max_grad_norm / (team.gradient.norm() + 1e-6)).clamp(max=1.0))
                self.policy.optimizer.step()
                steps += 1
        self._move("cpu")
        self._n_updates += self.n_epochs
        means: dict[str, float] = dict(zip(LOSSES, (losses / steps).tolist(), strict=True))
        if not np.isfinite([*means.values()]).all():
            raise FloatingPointError(
                f"training diverged: after {self.num_timesteps} steps {means}; lower the learning rate"
            )
        self._log(means, clip)

    def _move(self, device: str) -> None:
        """Move the policy, and what its optimiser remembers."""
        if self.update_device == "cpu":
            return
        self.policy.to(device)
        for memory in self.policy.optimizer.state.values():
            memory.update({name: value.to(device) for name, value in memory.items()})

    def _log(self, means: dict[str, float], clip: float) -> None:
        buffer, log = self.rollout_buffer, self.logger.record
        for name, mean in means.items():
            log(f"train/{name}", mean)
        loss = means["policy_gradient_loss"] + self.vf_coef * means["value_loss"]
        log("train/loss", loss + self.ent_coef * means["entropy_loss"])
        log("train/explained_variance", explained_variance(buffer.values.flatten(), buffer.returns.flatten()))
        log("train/std", self.policy.log_std.exp().mean().item())  # pyright: ignore
        log("train/n_updates", self._n_updates, exclude="tensorboard")
        log("train/clip_range", clip)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_team"]


class Team:
    """Those who compute the gradients of shards: this process, and a helper for every shard but the first.

    Weights, transitions and gradients are in memory that all share; only orders are sent. Without a core
    for each shard, without `fork`, or where torch knows a GPU, this process computes one shard after another.
    On a GPU there is one shard.
    """

    def __init__(self, learner: ParallelPPO) -> None:
        """Allocate what is shared; helpers come with the first transitions."""
        self._policy: Any = learner.policy
        self._weights = learner.vf_coef, learner.ent_coef
        self._parameters = list(self._policy.parameters())
        self._sizes = [each.numel() for each in self._parameters]
        self.count, device = learner.n_steps * learner.n_envs, torch.device(learner.update_device)
        shards = learner.shards if device.type == "cpu" else 1
        self._gradients = torch.zeros(shards, sum(self._sizes), device=device)
        self._losses = torch.zeros(shards, len(LOSSES), device=device)
        self._order = torch.arange(self.count, device=device)
        self._data: RolloutBufferSamples | None = None
        self._forks = learner.helpers and 1 < shards <= _cores()
        self._helpers: list[Connection] = []
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def gradient(self) -> Tensor:
        """Of the last minibatch, all parameters in one vector, which the parameters' own are views of."""
        return self._gradients[0]

    def take(self, data: RolloutBufferSamples) -> None:
        """Take the transitions of an update."""
        if not self._forks:
            self._data = RolloutBufferSamples(*(each.to(self._order.device) for each in data))
        elif self._data is None:
            self._gradients, self._losses, self._order = map(
                _shared, (self._gradients, self._losses, self._order)
            )
            for parameter in self._parameters:
                parameter.data = _shared(parameter.data)
            self._data = RolloutBufferSamples(*map(_shared, data))
            for shard in range(1, len(self._gradients)):
                self._hire(shard)
        else:
            for mine, new in zip(self._data, data, strict=True):
                mine.copy_(new)

    def shuffle(self) -> None:
        """Begin a pass over the transitions, in another order."""
        self._order.copy_(torch.randperm(self.count))

    def differentiate(self, start: int, stop: int, clip: float) -> Tensor:
        """Compute `gradient` on transitions `start` to `stop` in the present order, and give the losses."""
        learning = [each.requires_grad for each in self._parameters]
        try:
            for helper in self._helpers:
                helper.send((start, stop, clip, learning))
            # The first one last, whose gradients the parameters keep.
            for shard in reversed(range(1 if self._helpers else len(self._gradients))):
                self._differentiate(shard, start, stop, clip)
            for helper in self._helpers:
                helper.recv_bytes()
        except (EOFError, OSError):
            raise ChildProcessError(
                "a helper of the gradient steps has ended, perhaps for want of memory; the same command "
                "continues from the last checkpoint"
            ) from None
        for other in self._gradients[1:]:
            self.gradient.add_(other)
        return self._losses.sum(dim=0)

    def _differentiate(self, shard: int, start: int, stop: int, clip: float) -> None:
        """Compute the gradient of a shard, and its part of the losses."""
        assert self._data is not None
        rows = self._order[start:stop]
        advantages = self._data.advantages[rows]
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        advantages, rows = (each.tensor_split(len(self._gradients))[shard] for each in (advantages, rows))
        values, log_prob, entropy = self._policy.evaluate_actions(
            self._data.observations.index_select(0, rows), self._data.actions.index_select(0, rows)
        )
        log_ratio = log_prob - self._data.old_log_prob[rows]
        ratio = log_ratio.exp()
        surrogate = torch.min(advantages * ratio, advantages * ratio.clamp(1.0 - clip, 1.0 + clip)).sum()
        error = (self._data.returns[rows] - values.flatten()).square().sum()
        value_weight, entropy_weight = self._weights
        self._point(shard)
        self._gradients[shard].zero_()
        ((value_weight * error - surrogate - entropy_weight * entropy.sum()) / (stop - start)).backward()
        with torch.no_grad():
            divergence = (ratio - 1.0 - log_ratio).sum()
            clipped = ((ratio - 1.0).abs() > clip).sum()
            losses = torch.stack([-surrogate, error, -entropy.sum(), divergence, clipped])
            self._losses[shard] = losses / (stop - start)

    def _point(self, shard: int) -> None:
        """Let the parameters' gradients be those of a shard; what does not learn has none."""
        parts = self._gradients[shard].split(self._sizes)
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter) if parameter.requires_grad else None

    def _hire(self, shard: int) -> None:
        """Start the helper of a shard."""
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        helper = context.Process(target=self._help, args=(shard, ours, theirs), daemon=True)
        helper.start()
        theirs.close()
        self._closing.callback(helper.join)
        self._closing.callback(ours.close)
        self._helpers.append(ours)

    def _help(self, shard: int, ours: Connection, orders: Connection) -> None:
        """What a helper does until this process ends or closes its end of the pipe."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for other in (*self._helpers, ours):
            other.close()
        _close_all_but(orders.fileno())
        torch.set_num_threads(1)
        while True:
            try:
                *order, learning = orders.recv()
            except (EOFError, OSError):
                return
            for parameter, learns in zip(self._parameters, learning, strict=True):
                parameter.requires_grad_(learns)
            self._differentiate(shard, *order)
            orders.send_bytes(b"")


def _shared(tensor: Tensor) -> Tensor:
    """A copy in memory that processes forked later share; unlike torch's own not bounded by /dev/shm."""
    memory = mmap.mmap(-1, tensor.numel() * tensor.element_size())
    return torch.frombuffer(memory, dtype=tensor.dtype).view(tensor.shape).copy_(tensor)


def _close_all_but(descriptor: int) -> None:
    """Close the files that were open at the fork: a lock among them would outlive whoever held it."""
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))


def _cores() -> int:
    """Cores for helpers; one where nothing can be forked, or torch cannot differentiate in what is."""
    if "fork" not in multiprocessing.get_all_start_methods() or torch.accelerator.is_available():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

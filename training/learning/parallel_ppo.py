"""PPO as stable-baselines3 has it, faster: each gradient step is shared by processes."""

import inspect
import mmap
import multiprocessing
import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.utils import explained_variance
from torch import Tensor
from typing_extensions import Self

LOSSES = ("policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction")
"""What is logged of the gradient steps, as stable-baselines3 names it."""
SPIN_S = 1e-3
"""How long a process asks for the other's answer before it sleeps: longer than a shard takes [s]."""


class Adam(torch.optim.Adam):
    """torch's Adam in one kernel, and without the second that importing torch's compiler takes."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings, fused=True)

    def step(self, closure: None = None) -> None:  # pyright: ignore
        """Take a step along the gradients."""
        self.descend()

    def descend(self) -> None:
        """The same without torch's hooks, which take almost as long as the step."""
        for group in self.param_groups:
            learning, gradients, means, squares, steps = ([] for _ in range(5))
            self._init_group(group, learning, gradients, means, squares, [], steps)
            settings = {name: group[name] for name in ("lr", "weight_decay", "eps", "amsgrad", "maximize")}
            settings["beta1"], settings["beta2"] = group["betas"]
            with torch.no_grad():
                torch._foreach_add_(steps, 1.0)  # pyright: ignore
                torch._fused_adam_(learning, gradients, means, squares, [], steps, **settings)  # pyright: ignore

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
            arguments: of `PPO`, the policy among them, which is an `AllocatorPolicy` with `Adam`.
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
        starts, optimiser = range(0, team.count, self.batch_size), cast(Adam, self.policy.optimizer)
        for _ in range(self.n_epochs):
            team.shuffle(self.batch_size)
            for start in starts:
                team.differentiate(start, start + self.batch_size, clip)
                # A number asked for here would let a GPU wait at every step.
                norm = torch.linalg.vector_norm(team.gradient)
                team.gradient.mul_((self.max_grad_norm / norm).clamp(max=1.0))
                optimiser.descend()
        losses = team.losses / (self.n_epochs * len(starts))
        self._move("cpu")
        self._n_updates += self.n_epochs
        means: dict[str, float] = dict(zip(LOSSES, losses.tolist(), strict=True))
        if not np.isfinite([*means.values()]).all():
            raise FloatingPointError(
                f"training diverged: after {self.num_timesteps} steps {means}; lower the learning rate"
            )
        self._log(means, clip)

    def _move(self, device: str) -> None:
        """Move the policy, and what its optimiser remembers."""
        if self.update_device == "cpu":
            return
        # What is moved with the policy would no longer be a view of the team's gradients.
        self.policy.zero_grad()
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

    Weights, transitions, orders and gradients are in memory that all share; a byte says that an order stands
    there, and another that it is done. Without a core for each shard, without `fork`, or where torch knows a
    GPU, this process computes one shard after another. On a GPU there is one shard.
    """

    def __init__(self, learner: ParallelPPO) -> None:
        """Allocate what is shared; helpers come with the first transitions."""
        self._policy: Any = learner.policy
        self._weights = learner.vf_coef, learner.ent_coef
        self._parameters = list(self._policy.parameters())
        sizes = [each.numel() for each in self._parameters]
        self.count, device = learner.n_steps * learner.n_envs, torch.device(learner.update_device)
        shards = learner.shards if device.type == "cpu" else 1
        self._forks = learner.helpers and 1 < shards <= _cores()
        self._place: Callable[[Tensor], Tensor] = _shared if self._forks else lambda each: each.to(device)
        self._gradients = self._place(torch.zeros(shards, sum(sizes)))
        self._losses = self._place(torch.zeros(shards, len(LOSSES)))
        self._order = self._place(torch.arange(self.count))
        self._advantages = self._place(torch.zeros(self.count))
        # Of the present minibatch: its first and its last transition, the clip range, and who learns.
        self._orders = _shared(torch.zeros(3 + len(sizes), dtype=torch.float64)).numpy()
        if self._forks:
            for parameter in self._parameters:
                parameter.data = _shared(parameter.data)
        self._parts = [
            [part.view_as(like) for part, like in zip(each.split(sizes), self._parameters, strict=True)]
            for each in self._gradients
        ]
        self._data: RolloutBufferSamples | None = None
        self._helpers: list[socket.socket] = []
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def gradient(self) -> Tensor:
        """Of the last minibatch, all parameters in one vector, which the parameters' own are views of."""
        return self._gradients[0]

    @property
    def losses(self) -> Tensor:
        """Summed over the minibatches since transitions were last taken."""
        return self._losses.sum(dim=0)

    def take(self, data: RolloutBufferSamples) -> None:
        """Take the transitions of an update."""
        self._losses.zero_()
        if self._data is None or not self._forks:
            self._data = RolloutBufferSamples(*map(self._place, data))
            for shard in range(1, len(self._gradients) if self._forks else 1):
                self._hire(shard)
        else:
            for mine, new in zip(self._data, data, strict=True):
                mine.copy_(new)

    def shuffle(self, batch_size: int) -> None:
        """Begin a pass over the transitions, in another order, their advantages alike in each minibatch."""
        assert self._data is not None
        self._order.copy_(torch.randperm(self.count))
        parts = self._data.advantages[self._order].split(batch_size)
        torch.cat([(each - each.mean()) / (each.std() + 1e-8) for each in parts], out=self._advantages)

    def differentiate(self, start: int, stop: int, clip: float) -> None:
        """Compute `gradient` on transitions `start` to `stop` in the present order, and add to `losses`."""
        self._orders[:] = [start, stop, clip, *(each.requires_grad for each in self._parameters)]
        try:
            for helper in self._helpers:
                helper.send(b".")
            # The first one last, whose gradients the parameters keep.
            for shard in reversed(range(1 if self._helpers else len(self._gradients))):
                self._differentiate(shard, start, stop, clip)
            done = [_received(helper) for helper in self._helpers]
        except OSError:
            done = [False]
        if not all(done):
            raise ChildProcessError(
                "a helper of the gradient steps has ended, perhaps for want of memory; the same command "
                "continues from the last checkpoint"
            )
        for other in self._gradients[1:]:
            self.gradient.add_(other)

    def _differentiate(self, shard: int, start: int, stop: int, clip: float) -> None:
        """Compute the gradient of a shard, and add to its losses."""
        assert self._data is not None
        data, size = self._data, stop - start
        first, last = (start + size * part // len(self._gradients) for part in (shard, shard + 1))
        rows, advantages = self._order[first:last], self._advantages[first:last]
        observations, actions, old_log_prob, returns = (
            each.index_select(0, rows)
            for each in (data.observations, data.actions, data.old_log_prob, data.returns)
        )
        noise, values = self._policy.noise_and_values(observations)
        value_weight, entropy_weight = self._weights
        with torch.no_grad():
            log_prob, by_mean, by_log_std = noise.log_prob_and_slopes(actions)
            log_ratio = log_prob - old_log_prob
            ratio = log_ratio.exp()
            gain, bound = advantages * ratio, advantages * ratio.clamp(1.0 - clip, 1.0 + clip)
            error, change = values.flatten() - returns, ratio - 1.0
            losses = (
                -torch.min(gain, bound),
                error.square(),
                -noise.entropy(),
                change - log_ratio,
                (change.abs() > clip).to(change),
            )
            self._losses[shard].add_(torch.stack(losses).sum(dim=1), alpha=1.0 / size)
            # The derivatives of the loss by what the networks say, by hand: PyTorch would take as long
            # for them as for those of a small network.
            slope = gain.where(gain <= bound, 0.0).mul_(-1.0 / size)
            slopes = (
                (noise.mean, slope[:, None] * by_mean),
                (noise.log_std, slope @ by_log_std - entropy_weight * (last - first) / size),
                (values, error.mul_(2.0 * value_weight / size)),
            )
        self._point(shard)
        self._gradients[shard].zero_()
        # As one number: PyTorch imports a computer algebra system before it takes slopes along with outputs.
        learns = [output.flatten().dot(by.flatten()) for output, by in slopes if output.requires_grad]
        torch.stack(learns).sum().backward()

    def _point(self, shard: int) -> None:
        """Let the parameters' gradients be those of a shard; what does not learn has none."""
        for parameter, part in zip(self._parameters, self._parts[shard], strict=True):
            parameter.grad = part if parameter.requires_grad else None

    def _hire(self, shard: int) -> None:
        """Start the helper of a shard."""
        ours, theirs = socket.socketpair()
        context = multiprocessing.get_context("fork")
        helper = context.Process(target=self._help, args=(shard, theirs), daemon=True)
        helper.start()
        theirs.close()
        ours.setblocking(False)
        self._closing.callback(helper.join)
        self._closing.callback(ours.close)
        self._helpers.append(ours)

    def _help(self, shard: int, orders: socket.socket) -> None:
        """What a helper does until this process ends or closes its end."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _close_all_but(orders.fileno())
        torch.set_num_threads(1)
        orders.setblocking(False)
        try:
            while _received(orders):
                start, stop, clip, *learning = self._orders.tolist()
                for parameter, learns in zip(self._parameters, learning, strict=True):
                    parameter.requires_grad_(bool(learns))
                self._differentiate(shard, int(start), int(stop), clip)
                orders.send(b".")
        except OSError:
            return


def _received(other: socket.socket) -> bool:
    """Wait for a byte; False where the other process has ended."""
    asleep_at = perf_counter() + SPIN_S
    while True:
        try:
            return bool(other.recv(1))
        except BlockingIOError:
            if perf_counter() < asleep_at:
                os.sched_yield()
            else:
                select.select([other], [], [])


def _shared(tensor: Tensor) -> Tensor:
    """A copy in memory that processes forked later share; unlike torch's own not bounded by /dev/shm."""
    memory = mmap.mmap(-1, tensor.numel() * tensor.element_size())
    return torch.frombuffer(memory, dtype=tensor.dtype).view(tensor.shape).copy_(tensor)


def _close_all_but(descriptor: int) -> None:
    """Close the files that were open at the fork: a lock among them would outlive whoever held it."""
    most = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, most if most > 0 else 2**16)  # -1: any number


def _cores() -> int:
    """Cores for helpers; one where nothing can be forked, or torch cannot differentiate in what is."""
    if "fork" not in multiprocessing.get_all_start_methods() or torch.accelerator.is_available():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""The Gaussian noise with which PPO explores."""

from math import log, tau

import torch
from stable_baselines3.common.distributions import DiagGaussianDistribution
from torch import Tensor
from typing_extensions import Self


class Gaussian(DiagGaussianDistribution):
    """That of stable-baselines3 in few operations, of which a small network's gradient step has most."""

    mean: Tensor
    log_std: Tensor

    def proba_distribution(self, mean_actions: Tensor, log_std: Tensor) -> Self:
        """That of means, (B, A), and logarithms of standard deviations, (A,)."""
        self.mean, self.log_std = mean_actions, log_std
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Of actions, (B, A): (B,)."""
        return self.log_prob_and_slopes(actions)[0]

    def log_prob_and_slopes(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of actions, (B, A): (B,), and its derivatives by `mean` and by `log_std`, (B, A) each."""
        precision = (-self.log_std).exp()
        deviations = (actions - self.mean) * precision
        squares = deviations.square()
        constant = self.log_std.sum() + 0.5 * log(tau) * self.action_dim
        return -0.5 * squares.sum(dim=1) - constant, deviations * precision, squares - 1.0

    def entropy(self) -> Tensor:
        """(B,); it does not depend on the means."""
        return (self.log_std.sum() + 0.5 * (1.0 + log(tau)) * self.action_dim).expand(len(self.mean))

    def sample(self) -> Tensor:
        """Actions at random, (B, A)."""
        return self.mean + self.log_std.exp() * torch.randn_like(self.mean)

    def mode(self) -> Tensor:
        """The most likely actions, (B, A)."""
        return self.mean


class CommonNoise(Gaussian):
    """Gaussian actions of instances whose noise is in parts common to all, to an agent's and to a GPU's.

    With noise of each instance's own alone, what all outputs of a kind gain together is lost among N K of
    them. In the basis of differences between agents, times that of differences between GPUs, the noise is
    independent: a mean over all, N − 1 of agents, K − 1 of GPUs, and what is left. These four are the rows
    of `log_std`, (4, A).
    """

    def __init__(self, agents: int, gpus: int, each: int) -> None:
        super().__init__(agents * gpus * each)
        self.agents, self.gpus = _differences(agents), _differences(gpus)
        rows, columns = (torch.arange(count).clamp(max=1) for count in (agents, gpus))
        self.parts = rows[:, None] + 2 * columns
        """Which of the four parts each coordinate belongs to, (N, K)."""

    def initial_log_std(self, std: float, each: int) -> Tensor:
        """(4, A): of what is common to all `std`, of what is finer half as much each."""
        sizes = torch.bincount(self.parts.flatten(), minlength=4).clamp(min=1)
        stds = std * torch.tensor([1.0, 0.5, 0.5, 0.25]) * (self.parts.numel() / sizes).sqrt()
        return stds.log()[:, None].repeat(1, each)

    def proba_distribution(self, mean_actions: Tensor, log_std: Tensor) -> Self:
        """That of means, (B, N K A), and logarithms of standard deviations, (4, A)."""
        return super().proba_distribution(self._turned(mean_actions), log_std[self.parts].flatten())

    def log_prob_and_slopes(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of actions, (B, N K A): (B,), and its derivatives by `mean` and by `log_std`, (B, N K A) each."""
        return super().log_prob_and_slopes(self._turned(actions))

    def sample(self) -> Tensor:
        """Actions at random, (B, N K A)."""
        return self._turned(super().sample(), back=True)

    def mode(self) -> Tensor:
        """The most likely actions, (B, N K A)."""
        return self._turned(super().mode(), back=True)

    def _turned(self, actions: Tensor, back: bool = False) -> Tensor:
        rows, columns = (self.agents.T, self.gpus.T) if back else (self.agents, self.gpus)
        values = actions.view(len(actions), len(rows), len(columns), -1)
        return torch.einsum("ni,km,bima->bnka", rows.to(values), columns.to(values), values).flatten(1)


def _differences(count: int) -> Tensor:
    """An orthonormal basis, (count, count), whose first row is the mean."""
    basis = torch.cat([torch.ones(count, 1), torch.eye(count)[:, 1:]], dim=1)
    return torch.linalg.qr(basis.double()).Q.T

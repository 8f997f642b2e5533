"""Imitation of baselines before PPO: the policy learns to decide as they do where it leads itself.

Dataset aggregation (DAgger: Ross, Gordon and Bagnell, AISTATS 2011): the teacher plays a batch of episodes,
then the learner plays others; in every state the teacher says what it would do; the learner is fitted to all
that was said so far, and plays again.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from stable_baselines3 import PPO
from torch import Tensor
from torch.nn import functional

from baselines import Policy, fresh
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import View, observe
from gpualloc_env.simulation.state import Array
from training.evaluation.evaluate import rollout
from training.learning.action_transform import ActionTransform, Transform
from training.learning.allocator_policy import AllocatorPolicy
from training.learning.trained_network import decider_of, learned_policy

ROUNDS, EPISODES, PASSES = 9, 64, 4
"""Rounds of playing and fitting; episodes that are played in each; passes over the data in each."""
BATCH, LEARNING_RATE = 2048, 3e-3
_TEMPERATURE_GPU = 0.02  # a threshold is fitted to within it


class Lesson(NamedTuple):
    """What was seen and said in one step of all episodes, as tensors of float32."""

    observation: Tensor  # (B, N, F)
    held: Tensor  # (B, N) [GPU]
    shares: Tensor  # (B, N) [GPU] that the teacher asks for
    gpus: Tensor  # (B, 1) [GPU] of the platform
    free: Tensor  # (B, 1) [GPU] of change that costs nothing


def imitate(
    model: PPO,
    transform: ActionTransform,
    lessons_of: Sequence[tuple[Scenario, Policy]],
    first_seed: int,
) -> None:
    """Fit a model's actor to teachers, each in its scenario.

    Args:
        model: whose policy is an `AllocatorPolicy`.
        transform: from its actions to shares, on the simplex or following it with hysteresis.
        lessons_of: scenarios with the same agents, and who decides in each.
        first_seed: of the first episode; the others follow.

    Raises:
        ValueError: the actions are no shares.
    """
    check_imitation(transform)
    policy = cast(AllocatorPolicy, model.policy)
    parameters = [each for each in policy.actor_parameters if each is not policy.log_std]
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    rate = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, ROUNDS * PASSES)
    shuffle = torch.Generator().manual_seed(first_seed)
    lessons: list[Lesson] = []
    episodes = max(1, EPISODES // len(lessons_of))
    for round_ in range(ROUNDS):
        learner = learned_policy(decider_of(model, transform)) if round_ else None
        for scenario, teacher in lessons_of:
            lessons += _play(scenario, teacher, learner, first_seed, episodes)
            first_seed += episodes
        data = Lesson(*(torch.cat(column) for column in zip(*lessons, strict=True)))
        for _ in range(PASSES):
            for chosen in torch.randperm(len(data.held), generator=shuffle).split(BATCH):
                loss = _loss(policy, transform.settings, Lesson(*(column[chosen] for column in data)))
                optimiser.zero_grad()
                loss.backward()  # pyright: ignore[reportUnknownMemberType]
                optimiser.step()
            rate.step()


def check_imitation(transform: Transform) -> None:
    """Refuse a learner that cannot imitate.

    Raises:
        ValueError: its actions are no shares.
    """
    if transform.settings["kind"] not in ("simplex", "hysteresis"):
        raise ValueError(
            "teacher needs an allocator whose actions are shares; give --allocator ppo or ppo-shared"
        )


def _play(
    scenario: Scenario, teacher: Policy, learner: Policy | None, first_seed: int, episodes: int
) -> list[Lesson]:
    """What is seen and said in episodes in which the learner decides, or without one the teacher."""
    teacher, learner = fresh(teacher), None if learner is None else fresh(learner)
    lessons: list[Lesson] = []

    def decide(view: View) -> Array:
        said = teacher(view)
        gpus, free = (np.full((episodes, 1), each) for each in (view.gpus, view.deadband))
        seen = (observe(view), view.share, said * gpus, gpus, free)
        lessons.append(Lesson(*(torch.as_tensor(np.array(part, dtype=np.float32)) for part in seen)))
        return said if learner is None else learner(view)

    rollout(decide, scenario, episodes, first_seed, record=False)
    return lessons


def _loss(policy: AllocatorPolicy, settings: dict[str, Any], lesson: Lesson) -> Tensor:
    """Cross-entropy of shares, those that are left idle included, and of whether a share stays."""
    outputs, (_, agents) = policy.most_likely(lesson.observation), lesson.held.shape
    bound = settings["bound"]
    outputs = outputs.clamp(-bound, bound)
    each = outputs[:, :-1].unflatten(1, (agents, -1))
    idle = outputs[:, -1:] + settings["idle_bias"] + math.log(agents)
    logarithms = torch.log_softmax(torch.cat([each[..., 0], idle], dim=1), dim=1)
    said = lesson.shares / lesson.gpus
    said = torch.cat([said, (1.0 - said.sum(dim=1, keepdim=True)).clamp(min=0.0)], dim=1)
    loss = 10.0 * functional.kl_div(logarithms, said, reduction="batchmean")
    if settings["kind"] == "hysteresis":
        change = (logarithms[:, :-1].detach().exp() * lesson.gpus - lesson.held).abs()
        thresholds = settings["widest"] * torch.sigmoid(each[..., 1] + settings["threshold_bias"])
        stays = ((lesson.shares - lesson.held).abs() <= lesson.free + 1e-6).float()
        margin = (thresholds - change) / _TEMPERATURE_GPU
        loss = loss + functional.binary_cross_entropy_with_logits(margin, stays, reduction="sum") / len(stays)
    return loss

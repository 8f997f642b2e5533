"""Imitation of baselines before PPO: the policy learns to decide as they do where it leads itself.

Dataset aggregation (DAgger: Ross, Gordon and Bagnell, AISTATS 2011): the teacher plays a batch of episodes,
then the learner plays others; in every state the teacher says what it would do; the learner is fitted to all
that was said so far, and plays again.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from stable_baselines3 import PPO
from torch import Tensor
from torch.nn import functional

from baselines import Planner, Policy, fresh
from gpualloc_env.allocator.actions import ASSUMPTIONS, PRICED, outputs_of, told_of
from gpualloc_env.allocator.receding_horizon import CORRECTIONS, Assumed
from gpualloc_env.batch import Batch
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import View, observe
from gpualloc_env.simulation.state import Array
from training.evaluation.evaluate import rollout
from training.learning.allocators.action_transform import ActionTransform, Transform, told
from training.learning.allocators.allocator_policy import AllocatorPolicy, SharedHead
from training.learning.allocators.trained_network import LearnedPolicy, decider_of
from training.learning.parallel_ppo import Adam

ROUNDS, EPISODES, PASSES = 9, 64, 4
"""Rounds of playing and fitting; episodes that are played in each; passes over the data in each."""
BATCH, MOST_UPDATES, LEARNING_RATE = 2048, 250, 3e-3
"""States in an update, fewer with more agents; updates in a pass at most, on a part of the data."""
_TEMPERATURE_GPU = 0.02  # a threshold is fitted to within it
_SHARES, _STAYS = 10.0, 4.0  # weights in the loss: of a state's shares, of agents that stay or move


class Lesson(NamedTuple):
    """What was seen and said in one step of all episodes, as tensors of float32."""

    observation: Tensor  # (B, N, F)
    held: Tensor  # (B, N) [GPU]
    said: Tensor  # (B, N) shares that the teacher asks for [GPU], or (B, N, A) outputs for what it assumes
    gpus: Tensor  # (B, 1) [GPU] of the platform
    free: Tensor  # (B, 1) [GPU] of change that costs nothing
    told: Tensor  # (B, 1) what a priced allocator is told of the bill, as a logarithm


def imitate(
    model: PPO,
    transform: ActionTransform,
    lessons_of: Sequence[tuple[Scenario, Policy]],
    first_seed: int,
    *,
    rounds: int = ROUNDS,
    episodes: int = EPISODES,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Fit a model's actor to teachers, each in its scenario.

    Where scenarios have other numbers of agents than the model, so many fewer episodes of them are played and
    so many fewer states are in an update that all agents count alike.

    Args:
        model: whose policy is an `AllocatorPolicy`.
        transform: from its actions to shares, or to what receding-horizon control assumes.
        lessons_of: scenarios and who decides in each; with the model's number of agents, or with any
            where its network serves any.
        first_seed: of the first episode; the others follow.
        rounds: of playing and fitting.
        episodes: of all scenarios in a round.
        progress: called with the number of rounds done after each of them.

    Raises:
        ValueError: as `check_imitation`.
    """
    check_imitation(transform, lessons_of)
    policy = cast(AllocatorPolicy, model.policy)
    parameters = [each for each in policy.actor_parameters if each is not policy.log_std]
    optimiser = Adam(parameters, lr=LEARNING_RATE)
    rate = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, rounds * PASSES)
    shuffle = torch.Generator().manual_seed(first_seed)
    loss_of = _LOSSES[transform.settings["kind"]]
    lessons: dict[int, list[Lesson]] = {len(scenario.agents): [] for scenario, _ in lessons_of}
    each = episodes // len(lessons_of)
    for round_ in range(rounds):
        for scenario, teacher in lessons_of:
            count, own = len(scenario.agents), told(transform, scenario)
            learner = LearnedPolicy(decider_of(model, own)) if round_ else None
            played = max(1, each * transform.num_agents // count)
            lessons[count] += _play(scenario, teacher, learner, own, first_seed, played)
            first_seed += played
        for count, said in lessons.items():
            # In place of its parts, which would take as much memory again.
            lessons[count] = [Lesson(*map(torch.cat, zip(*said, strict=True)))]
        data = {count: said[0] for count, said in lessons.items()}
        if round_ == 0 and transform.settings["kind"] in ASSUMPTIONS:
            _begin_with_the_mean(policy, data.values())
        for _ in range(PASSES):
            for lesson in _minibatches(data, transform.num_agents, shuffle):
                loss = loss_of(policy, transform.settings, lesson)
                optimiser.zero_grad()
                loss.backward()  # pyright: ignore[reportUnknownMemberType]
                optimiser.step()
            rate.step()
        if progress is not None:
            progress(round_ + 1)


def _begin_with_the_mean(policy: AllocatorPolicy, data: Iterable[Lesson]) -> None:
    """Let an actor say the mean of what a teacher said, whatever it sees.

    A teacher with constants of its own says hardly anything else. Hidden units that have to learn that end
    where tanh is flat, and nothing that is seen matters from then on.
    """
    assert isinstance(policy.action_net, SharedHead)
    mean = torch.cat([lesson.said.flatten(0, 1) for lesson in data]).mean(dim=0)
    with torch.no_grad():
        policy.action_net.own.bias[: len(mean)] = mean


def _minibatches(data: dict[int, Lesson], agents: int, shuffle: torch.Generator) -> Iterator[Lesson]:
    """What was said, by the number of agents, in random parts and in random order."""
    parts = [
        (count, chosen)
        for count, said in data.items()
        for chosen in torch.randperm(len(said.held), generator=shuffle).split(max(1, BATCH * agents // count))
    ]
    if len(data) > 1:
        parts = [parts[k] for k in torch.randperm(len(parts), generator=shuffle).tolist()]
    for count, chosen in parts[:MOST_UPDATES]:
        yield Lesson(*(column[chosen] for column in data[count]))


def check_imitation(transform: Transform, lessons_of: Sequence[tuple[Scenario, Policy]]) -> None:
    """Refuse a learner that cannot imitate, and teachers that it cannot learn from.

    Raises:
        ValueError: its actions are neither shares nor assumptions, or a teacher assumes nothing.
    """
    if transform.settings["kind"] not in _LOSSES:
        raise ValueError(
            "teacher needs an allocator whose actions are shares or assumptions; give --allocator ppo, "
            "ppo-shared, ppo-mpc or ppo-mpc-priced"
        )
    for scenario, teacher in lessons_of:
        if transform.settings["kind"] in ASSUMPTIONS and _assumed(teacher, Batch(scenario, 1).view) is None:
            raise ValueError(
                f"a teacher for {scenario.name!r} does not plan as receding-horizon control does, so that "
                "there is nothing that it assumes; give receding-horizon, a ppo-residual or a ppo-mpc"
            )


def _assumed(teacher: Policy, view: View) -> Assumed | None:
    """What a teacher assumes; None where it does not plan."""
    return teacher.assumed(view) if isinstance(teacher, Planner) else None


def _play(
    scenario: Scenario,
    teacher: Policy,
    learner: Policy | None,
    transform: ActionTransform,
    first_seed: int,
    episodes: int,
) -> list[Lesson]:
    """What is seen and said in episodes in which the learner decides, or without one the teacher."""
    teacher, learner = fresh(teacher), None if learner is None else fresh(learner)
    lessons, plans = list[Lesson](), transform.settings["kind"] in ASSUMPTIONS
    bill = told_of(transform.settings)

    def decide(view: View) -> Array:
        shares = teacher(view) if learner is None else learner(view)
        known = (np.full((episodes, 1), each) for each in (view.gpus, view.deadband, bill))
        if plans:
            # What the teacher would decide on its assumptions takes far longer than to tell them.
            assumed = _assumed(teacher, view)
            assert assumed is not None
            said = outputs_of(assumed, transform.settings)
        else:
            said = (shares if learner is None else teacher(view)) * view.gpus
        seen = (observe(view), view.share, said, *known)
        lessons.append(Lesson(*(torch.as_tensor(np.array(part, dtype=np.float32)) for part in seen)))
        return shares

    rollout(decide, scenario, episodes, first_seed, record=False)
    return lessons


def _loss_of_shares(policy: AllocatorPolicy, settings: dict[str, Any], lesson: Lesson) -> Tensor:
    """Cross-entropy of shares, those that are left idle included."""
    return _SHARES * _divergence(_log_shares(policy, settings, lesson)[0], lesson)


def _loss_with_hysteresis(policy: AllocatorPolicy, settings: dict[str, Any], lesson: Lesson) -> Tensor:
    """The same, and cross-entropy of whether a share stays."""
    logarithms, each = _log_shares(policy, settings, lesson)
    change = (logarithms[:, :-1].detach().exp() * lesson.gpus - lesson.held).abs()
    thresholds = settings["widest"] * torch.sigmoid(each[..., 1] + settings["threshold_bias"])
    stays = ((lesson.said - lesson.held).abs() <= lesson.free + 1e-6).float()
    margin = (thresholds - change) / _TEMPERATURE_GPU
    # A mean over agents: a sum would drown the shares where agents are many.
    staying = functional.binary_cross_entropy_with_logits(margin, stays)
    return _SHARES * _divergence(logarithms, lesson) + _STAYS * staying


def _log_shares(policy: AllocatorPolicy, settings: dict[str, Any], lesson: Lesson) -> tuple[Tensor, Tensor]:
    """Logarithms of shares of the platform, (B, N + 1), the last one idle; and each agent's outputs."""
    outputs, (_, agents) = policy.most_likely(lesson.observation), lesson.held.shape
    outputs = outputs.clamp(-settings["bound"], settings["bound"])
    each = outputs[:, :-1].unflatten(1, (agents, -1))
    idle = outputs[:, -1:] + settings["idle_bias"] + math.log(agents)
    return torch.log_softmax(torch.cat([each[..., 0], idle], dim=1), dim=1), each


def _divergence(logarithms: Tensor, lesson: Lesson) -> Tensor:
    said = lesson.said / lesson.gpus
    said = torch.cat([said, (1.0 - said.sum(dim=1, keepdim=True)).clamp(min=0.0)], dim=1)
    return functional.kl_div(logarithms, said, reduction="batchmean")


def _loss_of_assumptions(policy: AllocatorPolicy, settings: dict[str, Any], lesson: Lesson) -> Tensor:
    """Squared errors of an agent's corrections and of the constants of all."""
    outputs = policy.most_likely(lesson.observation).view_as(lesson.said)
    return _squared_errors(outputs, settings, lesson)


def _loss_with_prices(policy: AllocatorPolicy, settings: dict[str, Any], lesson: Lesson) -> Tensor:
    """The same, half of it as it is told what the bill weighs, half as if nobody told it."""
    outputs = policy.most_likely(lesson.observation).view(*lesson.said.shape[:2], -1)
    level, slope = outputs.chunk(2, dim=-1)
    slope = slope + torch.as_tensor(PRICED, dtype=slope.dtype)
    informed = _squared_errors(level + lesson.told.unsqueeze(-1) * slope, settings, lesson)
    return 0.5 * (informed + _squared_errors(level, settings, lesson))


def _squared_errors(outputs: Tensor, settings: dict[str, Any], lesson: Lesson) -> Tensor:
    errors = outputs.clamp(-settings["bound"], settings["bound"]) - lesson.said
    own, common = errors[..., : len(CORRECTIONS)], errors[..., len(CORRECTIONS) :].mean(dim=1)
    return own.square().mean() + common.square().mean()


_LOSSES = {
    "simplex": _loss_of_shares,
    "hysteresis": _loss_with_hysteresis,
    "assumptions": _loss_of_assumptions,
    "priced-assumptions": _loss_with_prices,
}
"""From the kind of actions to the loss of a lesson."""

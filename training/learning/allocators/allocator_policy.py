"""The actor and the critic that PPO trains, as a policy of stable-baselines3."""

from itertools import pairwise
from math import prod
from typing import Any, Literal

import torch
from gymnasium import spaces
from llvmlite.binding import get_host_cpu_name  # pyright: ignore
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from gpualloc_env.allocator.cluster import CLUSTER_COLUMNS
from gpualloc_env.allocator.networks import LOG_ODDS, LOG_ODDS_LEAST, LOG_ODDS_SCALE
from gpualloc_env.simulation.observation import OBSERVATION_FEATURES
from training.learning.allocators.exploration import CommonNoise, Gaussian

FEATURES = len(OBSERVATION_FEATURES)
_SHARE, _GPUS = OBSERVATION_FEATURES.index("share"), OBSERVATION_FEATURES.index("gpus")
_ODDS = [OBSERVATION_FEATURES.index(name) for name in LOG_ODDS]

NetworkKind = Literal["mlp", "shared", "exchangeable"]


# PyTorch's tanh is that of Intel's library, which takes four times as long on AMD's processors.
_SLOW_TANH = torch.backends.mkl.is_available() and get_host_cpu_name().startswith("znver")


def tanh(values: Tensor) -> Tensor:
    """The hyperbolic tangent; as 2 σ(2x) − 1, to 2e-7, where PyTorch's own is slow."""
    return 2.0 * torch.sigmoid(values + values) - 1.0 if _SLOW_TANH else torch.tanh(values)


class Perceptron(nn.Module):
    """tanh layers over all rows at once: (B, N, F) to (B, H)."""

    def __init__(self, agents: int, features: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        widths = (agents * features, *hidden)
        self.own = nn.ModuleList(nn.Linear(*each) for each in pairwise(widths))
        self.width = widths[-1]

    def forward(self, rows: Tensor) -> Tensor:
        """Hidden units of all agents together."""
        units = rows.flatten(1)
        for own in self.own:
            units = tanh(own(units))
        return units


class Equivariant(nn.Module):
    """The hidden layers of `gpualloc_env.allocator.networks.shared`: (B, N, F) to (B, N, H)."""

    def __init__(self, features: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        inner, inputs = list(pairwise(hidden)), features + len(LOG_ODDS)
        self.own = nn.ModuleList(nn.Linear(*widths) for widths in pairwise((inputs, *hidden)))
        self.width = (inputs, *hidden)[-1]
        self.mean = nn.ModuleList(nn.Linear(inputs, outputs, bias=False) for inputs, outputs in inner)
        self.max = nn.ModuleList(nn.Linear(inputs, outputs, bias=False) for inputs, outputs in inner)

    def ignore_platform(self) -> None:
        """Begin deaf to what does not vary in training, so that it matters little where it differs."""
        with torch.no_grad():
            for layer in self.own[:1]:
                layer.weight[:, _GPUS:FEATURES] = 0.0  # pyright: ignore

    def forward(self, rows: Tensor) -> Tensor:
        """Hidden units of every agent, in the context of all."""
        gpus = rows[..., _GPUS]
        held = rows[..., _SHARE] * gpus / (1.0 - gpus).clamp(min=1e-6)
        rows = torch.cat([rows[..., :_SHARE], held.unsqueeze(-1), rows[..., _SHARE + 1 :]], dim=-1)
        values = rows[..., _ODDS].clamp(max=1.0)
        odds = (values + LOG_ODDS_LEAST) / (1.0 + LOG_ODDS_LEAST - values)
        units = torch.cat([rows, LOG_ODDS_SCALE * odds.log()], dim=-1)
        for own in self.own[:1]:
            units = tanh(own(units))
        for own, mean, most in zip(self.own[1:], self.mean, self.max, strict=True):  # pyright: ignore
            context = mean(units.mean(dim=1)) + most(units.amax(dim=1))
            units = tanh(own(units) + context.unsqueeze(1))
        return units


class Exchangeable(nn.Module):
    """The hidden layers of `gpualloc_env.allocator.cluster.exchangeable`: (B, N, K, F) to (B, N, K, H)."""

    def __init__(self, features: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        inner = list(pairwise(hidden))
        self.own = nn.ModuleList(nn.Linear(*widths) for widths in pairwise((features, *hidden)))
        self.width = (features, *hidden)[-1]
        self.agent = nn.ModuleList(nn.Linear(*widths, bias=False) for widths in inner)
        self.gpu = nn.ModuleList(nn.Linear(*widths, bias=False) for widths in inner)

    def forward(self, rows: Tensor) -> Tensor:
        """Hidden units of every instance, in the context of its agent's and of its GPU's."""
        units = rows
        for own in self.own[:1]:
            units = tanh(own(units))
        for own, agent, gpu in zip(self.own[1:], self.agent, self.gpu, strict=True):  # pyright: ignore
            context = agent(units.amax(dim=2, keepdim=True)) + gpu(units.amax(dim=1, keepdim=True))
            units = tanh(own(units) + context)
        return units


class Bodies(nn.Module):
    """The hidden layers of the actor, which sees what the allocator will see, and of the critic.

    The critic also sees what stands behind those columns, and is not needed after training
    (asymmetric actor-critic: Pinto et al., RSS 2018).
    """

    def __init__(self, kind: NetworkKind, shape: tuple[int, ...], hidden: tuple[int, ...]) -> None:
        super().__init__()
        *rows, features = shape
        self.shape, self.rows, self.kind = shape, prod(rows), kind
        self.seen = len(CLUSTER_COLUMNS) if kind == "exchangeable" else FEATURES
        if kind == "mlp":
            self.actor, self.critic = (
                Perceptron(self.rows, columns, hidden) for columns in (self.seen, features)
            )
        else:
            body = Exchangeable if kind == "exchangeable" else Equivariant
            self.actor, self.critic = (body(columns, hidden) for columns in (self.seen, features))
        self.latent_dim_pi, self.latent_dim_vf = self.actor.width, self.critic.width

    def forward(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden units for the actions and for the value."""
        return self.forward_actor(flat), self.forward_critic(flat)

    def forward_actor(self, flat: Tensor) -> Tensor:
        """(B, H), or (B, N, H) where the network is shared, (B, N, K, H) where it is exchangeable."""
        return self.actor(flat.view(-1, *self.shape)[..., : self.seen])

    def forward_critic(self, flat: Tensor) -> Tensor:
        """(B, H)."""
        units = self.critic(flat.view(-1, *self.shape))
        return units if self.kind == "mlp" else units.flatten(1, -2).mean(dim=1)


class SharedHead(nn.Module):
    """The last layer of `gpualloc_env.allocator.networks.shared`: (B, N, H) or (B, N, K, H) to (B, A)."""

    def __init__(self, inputs: int, outputs: int, idle: bool) -> None:
        super().__init__()
        self.own = nn.Linear(inputs, outputs)
        self.idle = nn.Linear(inputs, 1) if idle else None

    def forward(self, units: Tensor) -> Tensor:
        """The outputs of all agents, and the common one."""
        outputs = self.own(units).flatten(1)
        if self.idle is None:
            return outputs
        return torch.cat([outputs, self.idle(units.mean(dim=1))], dim=1)


class AllocatorPolicy(ActorCriticPolicy):
    """PPO's policy with either network, for observations whose first columns are the environment's."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        network: NetworkKind,
        hidden: tuple[int, ...],
        initial_std: float,
        initial_gain: float,
        **others: Any,
    ) -> None:
        """Build the networks.

        Args:
            observation_space: (N, F), or (N, K, F) of a cluster, and what the critic sees besides.
            action_space: (A,).
            lr_schedule: from the part of the training that is left to the learning rate.
            network: `mlp`, `shared` or `exchangeable`.
            hidden: units of the hidden layers, of the actor and of the critic each.
            initial_std: of the exploration.
            initial_gain: of the actor's last layer; with 0 its most likely actions are zero at first.
            others: for `ActorCriticPolicy`.
        """
        self.network: NetworkKind = network
        self.hidden, self.initial_std, self.initial_gain = tuple(hidden), initial_std, initial_gain
        super().__init__(observation_space, action_space, lr_schedule, **others)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = ("network", "hidden", "initial_std", "initial_gain")
        return super()._get_constructor_parameters() | {name: getattr(self, name) for name in own}

    def _build(self, lr_schedule: Schedule) -> None:
        assert self.observation_space.shape is not None and self.action_space.shape is not None
        (size,) = self.action_space.shape
        self.mlp_extractor: Any = Bodies(self.network, self.observation_space.shape, self.hidden)
        width = self.mlp_extractor.latent_dim_pi
        if self.network == "mlp":
            self.action_net: nn.Module = nn.Linear(width, size)
            explored = size
        else:
            each, idle = divmod(size, self.mlp_extractor.rows)
            self.action_net = SharedHead(width, each, idle=bool(idle))
            explored = each + idle
        self.value_net = nn.Linear(self.mlp_extractor.latent_dim_vf, 1)
        for module, gain in (
            (self.mlp_extractor, 1.0),
            (self.action_net, self.initial_gain),
            (self.value_net, 1.0),
        ):
            for layer in module.modules():
                self.init_weights(layer, gain)
        if self.network == "shared":
            self.mlp_extractor.actor.ignore_platform()
        # One for each kind of output, so that exploration does not depend on the order of agents either.
        self.action_dist = Gaussian(size)
        start = torch.full((explored,), float(self.initial_std)).log()
        if self.network == "exchangeable":
            agents, gpus, _ = self.observation_space.shape
            self.action_dist = CommonNoise(agents, gpus, explored)
            start = self.action_dist.initial_log_std(self.initial_std, explored)
        self.log_std = nn.Parameter(start)
        make_optimiser: Any = self.optimizer_class
        self.optimizer = make_optimiser(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def extract_features(self, obs: Tensor, features_extractor: Any = None) -> Tensor:  # pyright: ignore
        """The observations as they are, in [0, 1] and float32."""
        return obs

    def noise_and_values(self, observation: Tensor) -> tuple[Gaussian, Tensor]:
        """The distribution of the actions and the values, (B, 1), for observations, (B, …)."""
        for_actions, for_values = self.mlp_extractor(observation)
        return self._get_action_dist_from_latent(for_actions), self.value_net(for_values)

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Gaussian:
        assert isinstance(self.action_dist, Gaussian)
        means, log_std = self.action_net(latent_pi), self.log_std
        if self.network == "shared":
            rows = self.mlp_extractor.rows
            each, _ = divmod(means.shape[1], rows)
            log_std = torch.cat([log_std[:each].repeat(rows), log_std[each:]])
        return self.action_dist.proba_distribution(means, log_std)

    @property
    def actor_parameters(self) -> list[nn.Parameter]:
        """All that the actions depend on."""
        return [*self.mlp_extractor.actor.parameters(), *self.action_net.parameters(), self.log_std]

    def most_likely(self, observation: Tensor) -> Tensor:
        """The most likely actions, (B, A), before they are clipped, for observations of any B."""
        return self.action_net(self.mlp_extractor.actor(observation))

"""What the package does not import by itself: other libraries, and the folders beside it."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

from gymnasium.error import DependencyNotInstalled

from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import Array


class NotInstalled(DependencyNotInstalled, ImportError):
    """An optional library is not installed; the message says how to install it."""


def needed(module: str, extra: str) -> ModuleType:
    """A module of an optional library.

    Args:
        module: its name.
        extra: of this package, that installs it.

    Raises:
        NotInstalled: it is not.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        library = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != library:
            raise
        raise NotInstalled(f"{library} is not installed: pip install 'gpualloc-env[{extra}]'") from None


def beside(module: str) -> ModuleType:
    """A module of `baselines` or `training`: parts of this package in a wheel, beside it in a checkout."""
    folder = f"{__package__}.{module.partition('.')[0]}"
    try:
        return import_module(f"{__package__}.{module}")
    except ModuleNotFoundError as error:
        if error.name != folder:
            raise
        return import_module(module)


def policy(name: str, scenario: str = "serverless") -> Callable[[View], Array]:
    """A baseline, with the constants tuned for a scenario, or a pretrained allocator.

    Args:
        name: a name in `baselines.POLICIES`, or of a pretrained allocator such as
            `ppo-residual-serverless/seed-0.npz`.
        scenario: the name of a registered scenario.

    Returns:
        From a `View` of (N,) or (B, N) arrays to fractions of the platform of the same shape.

    Raises:
        ValueError: no such policy.
    """
    return beside("training.artifacts.policies").load_policy(name, load_scenario(scenario))

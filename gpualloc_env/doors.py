"""What the package does not import by itself: other libraries, and the folders beside it."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
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


def pretrained_file(name: str) -> Path | None:
    """The file of an allocator that comes with the package; none where there is none of that name.

    Args:
        name: of its folder, such as `universal`, whose seed 0 is meant, or of its file in there, such as
            `universal/seed-1` or `universal/seed-1.npz`.
    """
    folder: Path = beside("training.files").PRETRAINED
    inner = name.removeprefix("training/pretrained/").removesuffix(".npz")
    path = folder / (f"{inner}.npz" if "/" in inner else f"{inner}/seed-0.npz")
    return path if path.is_file() else None


def policy(name: str, scenario: str = "serverless") -> Callable[[View], Array]:
    """A baseline, with the constants tuned for a scenario, or a pretrained allocator.

    Args:
        name: a name in `baselines.POLICIES`, or of a pretrained allocator as in `Allocator.pretrained`.
        scenario: the name of a registered scenario.

    Returns:
        From a `View` of (N,) or (B, N) arrays to fractions of the platform of the same shape.

    Raises:
        ValueError: no such policy.
    """
    file = None if Path(name).exists() else pretrained_file(name)
    found = name if file is None else str(file)
    return beside("training.artifacts.policies").load_policy(found, load_scenario(scenario))

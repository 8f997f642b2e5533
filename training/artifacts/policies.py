"""Policies by name: a baseline of the registry, an exported allocator, or a training run."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baselines import CLUSTER_POLICIES, DEFAULTS, PRIVILEGED, Policy, baselines_of, is_baseline, policy_for
from gpualloc_env.allocator.allocator import Allocator
from gpualloc_env.allocator.cluster_allocator import ClusterAllocator
from gpualloc_env.allocator.file import read
from gpualloc_env.allocator.receding_horizon import Assumed
from gpualloc_env.listing import listed
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import Array
from training.artifacts.own_policy import is_own, own_policy
from training.evaluation.evaluate import Kind
from training.files import PRETRAINED
from training.files.run_directory import CONFIG, MODEL, TRANSFORM, read_json
from training.learning.allocators.action_transform import ActionTransform, ClusterTransform, Transform, told


class AgentsError(ValueError):
    """A policy that was made for other agents than a scenario has, or for the other kind of scenario."""


EXPORTED = (".npz",)

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportedPolicy:
    """The policy of an exported allocator, within its guardrails."""

    allocator: Allocator

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`."""
        return self.allocator.decide(view)

    def assumed(self, view: View) -> Assumed | None:
        """What receding-horizon control assumes in deciding; None where it does not decide."""
        return self.allocator.assumed(view)


def load_policy(name: str, scenario: Scenario) -> Policy:
    """Return the baseline of a name, see `policy_for`, or that of an exported file or a run directory.

    A baseline has the constants that were tuned for the scenario, where there are some.

    Loading a run unpickles the model that stable-baselines3 saved, which can run any code that
    its author put there: load only runs that you trust. An exported allocator cannot run any.

    Raises:
        ValueError: no such policy, an incomplete run, or a file that holds no allocator.
        AgentsError: a policy for other agents, or for the other kind of scenario.
        OSError: the file cannot be read.
    """
    if is_baseline(name):
        return _baseline(name, scenario)
    upper, plus, lower = name.partition("+")
    if plus and upper in CLUSTER_POLICIES:
        raise ValueError(
            f"policy {name!r}: {lower!r} cannot split the GPUs below {upper!r}, a baseline of one GPU can; "
            f"give {upper}+ and one of {', '.join(DEFAULTS)}"
        )
    if is_own(name):
        return _own(name, scenario)
    if name in PRIVILEGED:
        raise ValueError(f"{name!r} knows the future: it is made for a set of episodes, not for a scenario")
    name = located(name)
    if name.endswith(EXPORTED) and not Path(name).is_dir():
        return _exported(name, scenario)
    if name.endswith(".onnx"):
        raise ValueError(
            f"policy {name!r}: an .onnx file is for other runtimes; export the run as .npz to play it here"
        )
    directory = Path(name)
    if not directory.is_dir():
        raise ValueError(
            f"unknown policy {name!r}; give one of {', '.join(baselines_of(scenario))}, an exported "
            f"allocator ({' or '.join(EXPORTED)}), the directory of a training run, or your own function as "
            "module:name"
        )
    return _trained(name, directory, scenario)


def _trained(name: str, directory: Path, scenario: Scenario) -> Policy:
    """The policy of a training run's directory."""
    files = sorted(path.name for path in directory.iterdir() if path.name.endswith(EXPORTED))
    if files and not (directory / MODEL).is_file():
        held = "an exported allocator" if len(files) == 1 else f"{len(files)} exported allocators"
        raise ValueError(
            f"{name} holds {held} and no training run; give a file of it: {directory / files[0]}"
        )
    config = settings_in(directory)
    if config and "allocator" not in config:
        what = "a comparison" if "policies" in config else "what another command wrote"
        raise ValueError(
            f"{directory} holds {what} and no training run; give a directory that `train` has made"
        )
    for file in (MODEL, TRANSFORM):
        if not (directory / file).is_file():
            raise ValueError(f"{directory} holds no finished training run: {file} is missing; train it first")
    from training.learning.allocators import trained_network

    transform = read_transform(directory)
    if isinstance(transform, ClusterTransform) != bool(scenario.nodes):
        raise _other_kind(f"{name} was trained", scenario)
    model = trained_network.load_model(directory)
    _LOG.warning(
        "%s: loading a training run can run any code that its author put there; prefer the file that "
        "`python -m training.export %s --out allocator.npz` writes, which cannot",
        name,
        name,
    )
    if isinstance(transform, ActionTransform) and transform.num_agents != len(scenario.agents):
        if not trained_network.NETWORKS[str(model.policy.network)].serves_any_number:
            raise AgentsError(
                f"{name} was trained for {transform.num_agents} agents, scenario {scenario.name!r} has "
                f"{len(scenario.agents)}; train one for it"
            )
    return trained_network.policy_of(model, told(transform, scenario))


def _baseline(name: str, scenario: Scenario) -> Policy:
    try:
        return policy_for(name, scenario)
    except KeyError:
        raise _other_kind(f"policy {name!r} is one", scenario) from None


def _other_kind(policy: str, scenario: Scenario) -> AgentsError:
    """What to raise where a policy is one for the other kind of scenario."""
    kinds = ("one pool of GPUs", "nodes") if scenario.nodes else ("clusters", "one pool of GPUs")
    return AgentsError(
        f"{policy} for {kinds[0]}, and scenario {scenario.name!r} has {kinds[1]}; give some of "
        f"{', '.join(baselines_of(scenario))}"
    )


def _own(name: str, scenario: Scenario) -> Policy:
    policy = own_policy(name)
    if scenario.nodes and not policy.reads_view:
        raise AgentsError(
            f"policy {name!r} reads the observation, which no cluster hands to it here; name its "
            "argument `view`, and read the ClusterView"
        )
    return policy


def located(name: str) -> str:
    """The path of a policy: that of a pretrained one, also where its folder is not at hand."""
    kept = PRETRAINED / name.removeprefix("training/pretrained/")
    return name if Path(name).exists() or not kept.exists() else str(kept)


def _exported(name: str, scenario: Scenario) -> Policy:
    if not Path(name).exists():
        raise ValueError(f"policy {name!r}: no such file")
    manifest, _ = read(name)
    if manifest.of_clusters != bool(scenario.nodes):
        raise _other_kind(f"{name} was trained", scenario)
    if manifest.of_clusters:
        return ClusterAllocator.load(name)
    if not manifest.serves_any_number and manifest.agents != scenario.agent_names:
        raise AgentsError(
            f"{name} was trained for the agents {listed(manifest.agents)}, scenario {scenario.name!r} "
            f"has {listed(scenario.agent_names)}; train one for it"
        )
    bill_s = scenario.bill_s if manifest.priced else None
    return ExportedPolicy(Allocator.load(name, agents=scenario.agent_names, bill_s=bill_s))


def policy_of(name: str, scenario: Scenario, episodes: int, seed: int) -> Policy:
    """As `load_policy`, or a policy that knows the future of the episodes, the first seeded `seed`."""
    return PRIVILEGED[name](scenario, episodes, seed) if name in PRIVILEGED else load_policy(name, scenario)


def kind_of(name: str) -> Kind:
    """How a policy decides, by its name, file or directory."""
    if name in PRIVILEGED:
        return "privileged"
    return "online" if is_baseline(name) or is_own(name) else "learned"


def read_transform(directory: Path) -> Transform:
    """From the actions of a run's model to shares."""
    settings = read_json(directory / TRANSFORM)
    return ClusterTransform(**settings) if "instances" in settings else ActionTransform(**settings)


def load_policies(name: str, scenario: Scenario) -> list[Policy]:
    """The policy of a name, file or directory, or of every seed in a directory that holds several.

    They are runs, `seed-0` and so on, or exported allocators, `seed-0.npz` and so on.
    Raises as `load_policy` does.
    """
    seeds = [] if is_baseline(name) else _seeds(Path(located(name)))
    return [load_policy(str(seed), scenario) for seed in seeds] or [load_policy(name, scenario)]


def policy_file(name: str) -> Path:
    """The file or the run of a learned policy, the first of a directory that holds several seeds."""
    place = Path(located(name))
    return next(iter(_seeds(place)), place)


def _seeds(directory: Path) -> list[Path]:
    """The runs or exported files of a directory's several seeds, in their order; none of any other place."""
    return seed_runs(directory) or sorted(directory.glob("seed-*.npz"))


def seed_runs(directory: Path) -> list[Path]:
    """The runs of a directory that was trained with several seeds, in their order; none of any other."""
    return [path for path in sorted(directory.glob("seed-*")) if path.is_dir()]


ALL = "all"
"""In the place of names: every baseline."""


def with_all(policies: Sequence[str], scenario: Scenario) -> list[str]:
    """The policies that were asked for, every baseline of a scenario in the place of `all`."""
    return [each for given in policies for each in (baselines_of(scenario) if given == ALL else [given])]


def named(policies: Sequence[str], scenario: str = "") -> dict[str, str]:
    """The policies by the names under which they appear.

    A run is called by the last part of its path, by the last two if that is a seed alone, and by as
    many parts as it takes where that is another's name too. The name of a baseline stays as it is.
    On the scenario that its name ends with a policy does without that end, unless that is another's
    name: `my-serverless` is `my` on `serverless`. One of several seeds that was trained on the scenario is
    called by its kind there, `ppo-shared`, and so is any whose name would be the beginning of its kind's.

    Args:
        policies: names of baselines, files, and directories.
        scenario: the key of the scenario on which they are judged; none by default.

    Raises:
        ValueError: no policy, or one that is given twice.
    """
    if not policies:
        raise ValueError(f"no policies to compare; give some of {', '.join(DEFAULTS)}, or run directories")
    known = {*DEFAULTS, *PRIVILEGED, *(each for each in policies if is_own(each) or is_baseline(each))}
    parts = [(given,) if given in known else Path(given).resolve().parts for given in policies]
    for given, count in zip(policies, (parts.count(path) for path in parts), strict=True):
        if count > 1:
            raise ValueError(f"policy {given!r} is given {count} times; give each policy once")
    names: dict[str, str] = {}
    for given, path in zip(policies, parts, strict=True):
        others = [other for other in parts if other != path]
        least = 2 if path[-1].startswith("seed-") else 1
        unique = (n for n in range(least, len(path)) if all(other[-n:] != path[-n:] for other in others))
        length = next(unique, len(path))
        names["/".join(path[-length:])] = given
    short = {name: _on(scenario, name.removesuffix(".npz"), given) for name, given in names.items()}
    shared = Counter([*short.values(), *known.difference(names)])
    return {short[name] if shared[short[name]] == 1 else name: given for name, given in names.items()}


def _on(scenario: str, name: str, given: str) -> str:
    """What a policy is called on a scenario, by its path's last parts and what it was asked for as."""
    if not scenario:
        return name
    end = re.compile(rf"(?P<start>[^/]*)-{re.escape(scenario)}(?=/|$)")
    start = found["start"] if (found := end.search(name)) else ""
    config = {} if is_baseline(given) else training_of(given)
    # One that has learned in many scenarios belongs to none.
    if "allocator" in config and config.get("scenario") == scenario and not config.get("lessons"):
        kind = str(config["allocator"])
        if _seeds(Path(located(given))):
            return kind
        start = kind if start and kind.startswith(start) else start
    return end.sub(start, name)


def training_of(name: str) -> dict[str, Any]:
    """How a run or an exported allocator was trained, as it says itself; empty of anything else."""
    place = policy_file(name)
    if place.is_file() and place.suffix in EXPORTED:
        return read(place)[0].training.get("config", {})
    return settings_in(place)


def settings_in(directory: Path) -> dict[str, Any]:
    """What the command was asked for that made a directory, as it says itself; empty where it does not."""
    config = directory / CONFIG
    return read_json(config)["config"] if config.is_file() else {}

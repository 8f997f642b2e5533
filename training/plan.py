"""Plan GPUs for a request log: a page on which allocator to take, on how many GPUs, at what cost.

python -m training.plan my-log.csv --slo 5 --out runs/plan
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from gpualloc_env.allocator.actions import takes_bill
from gpualloc_env.allocator.file import read
from gpualloc_env.doors import needed
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.scenario.platform import Preset
from gpualloc_env.traces.log import Assignment
from training.artifacts.policies import EXPORTED, load_policies, named, policy_file, read_transform
from training.cli import asked, command_line, results_console, run, status_console
from training.evaluation.evaluate import Evaluation, evaluate
from training.evaluation.held_out import count_episodes
from training.files.provenance import write_config
from training.files.staging import staged
from training.fitting.fitted_scenario import write_scenario
from training.limits import Limits
from training.planning.caveats import caveats, facts
from training.planning.record import beside_slo, plan_record
from training.planning.subject import MOST_WINDOWS, Subject, subject
from training.planning.sweep import SEED, Choice, Trial, choose, trial, untried
from training.reporting.report import write_json
from training.sharing import RayWorkers

ALLOCATOR, SCENARIO = "allocator.npz", "scenario.toml"
FILES = ("plan.html", "plan.json", SCENARIO, ALLOCATOR, "config.json")
DEFAULT_POLICIES = (
    *("static", "adaptive", "adaptive-smoothed", "proportional-fair", "autoscaler", "knative"),
    *("receding-horizon", "training/pretrained/ppo-residual-serverless/seed-0.npz"),
    *("training/pretrained/universal/seed-0.npz", "training/pretrained/linear-residual-llm/seed-0.npz"),
)
DEFAULT_CLUSTER_POLICIES = (
    *("lru", "autoscaler", "popularity", "hierarchical", "demand"),
    *("autoscaler+receding-horizon", "popularity+receding-horizon"),
    "training/pretrained/linear-cluster-cluster-small/seed-0.npz",
)

OF_A_POOL = f"""\
from gpualloc_env import load_scenario
from gpualloc_env.allocator import Allocator

scenario = load_scenario({SCENARIO!r})
decide = Allocator.load({ALLOCATOR!r}, agents=scenario.agent_names{{told}}).decide"""
TOLD = ", bill_s=scenario.bill_s"
OF_A_CLUSTER = f"""\
from gpualloc_env.allocator.cluster_allocator import ClusterAllocator

decide = ClusterAllocator.load({ALLOCATOR!r})"""


@dataclass(frozen=True)
class PlanConfig(Overrides, RayWorkers):
    """Plan GPUs for a request log."""

    log: tyro.conf.Positional[Path]
    """A request log in one of the formats that `--trace` of other commands takes. It is played at its own
    times, unless `--load` stretches them."""
    scenario: str | None = None
    """A registered scenario, or the path of a .toml file, whose agents serve the log, such as the cluster
    that `training.cluster` makes of a log of models; default: `llm`, call by call, for a log with tokens, and
    `trace`, a fluid, for one without."""
    platform: Preset | None = None
    """Frictions of a measured platform in place of the scenario's: cold starts, changes of shares, slices."""
    gpus: Annotated[float | None, Limits(0, open_low=True)] = None
    """GPUs of the platform on which allocators are compared; default: the scenario's."""
    sweep: Annotated[tuple[float, ...] | None, Limits(0, open_low=True)] = None
    """Numbers of GPUs to try besides; default: at most 8 whole ones up to what all agents can hold, and
    those between them that the fewest may be."""
    max_share: Annotated[float | None, Limits(0, open_low=True)] = None
    """Maximum share of one agent [GPU]; default: the scenario's, which is usually 1."""
    usd_per_gpu_hour: Annotated[float | None, Limits(0)] = None
    """Price of one GPU for an hour [$]; default: the scenario's."""
    slo: Annotated[float | None, Limits(0, open_low=True)] = None
    """Time within which a request of any agent should be served [s]; default: each agent's `slo_s`."""
    attainment: Annotated[float, Limits(0, 1, open_low=True)] = 0.95
    """Fraction of all requests that should be."""
    assignment: Assignment | None = None
    """Agents that a request visits where the log names none; default: the scenario's rule."""
    policies: tuple[str, ...] | None = None
    """Names of baselines, exported allocators (.npz), directories of training runs, and functions of your own
    as `module:name`; default: seven baselines and three pretrained allocators, in a cluster seven that place
    and one that learned it."""
    episodes: Annotated[int, Limits(1)] = MOST_WINDOWS
    """Windows of the log to play at most, from its start. They have 300 s, less in a short log and more in
    one of several days, so that by default all of it is played; `--steps` gives another length."""
    out: Path = Path("runs/plan")
    """Directory for the page, the same as JSON, and what to take away; an earlier plan in it is replaced."""


def main(config: PlanConfig) -> None:
    """Play every allocator on platforms of every size, choose one, write the page and what to take away."""
    for library in ("jinja2", "plotly"):
        needed(library, "plan")
    from training.planning.page import headline, page

    status = status_console()
    if config.trace is not None:
        raise ValueError(f"--trace {config.trace}: a plan takes its log as first argument; leave out --trace")
    planned = subject(
        config.log,
        config.scenario,
        config,
        preset=config.platform,
        platform={name: getattr(config, name) for name in ("gpus", "max_share", "usd_per_gpu_hour")},
        assignment=config.assignment,
        slo_s=config.slo,
    )
    usual = DEFAULT_CLUSTER_POLICIES if planned.scenario.nodes else DEFAULT_POLICIES
    sizes, policies = planned.sizes(config.sweep), named(config.policies or usual)
    for given in policies.values():
        load_policies(given, planned.scenario)  # refuses what cannot play before anything is played
    windows = count_episodes(config.episodes, planned.scenario, policies=len(policies) * len(sizes))
    with staged(config.out, FILES, mark="plan.json") as directory:
        trials, choice = swept(config, planned, policies, sizes, windows, status)
        day = day_of(planned, choice.trial)
        unbroken = float(day.metrics[0]["slo_attainment"])
        priced = config.usd_per_gpu_hour is not None or (config.scenario or "").endswith(".toml")
        record: dict[str, Any] = {
            "log": facts(planned),
            **plan_record(planned, choice, trials, day, config.attainment),
            "take_away": take_away(planned, choice, directory, config),
            "caveats": caveats(planned, choice, trials, unbroken, config.attainment, priced=priced),
            "command": command(config),
        }
        write_json(directory / "plan.json", record)
        write_config(directory / "config.json", asdict(config))
        (directory / "plan.html").write_text(page(record, beside_slo(planned.scenario)), encoding="utf-8")
    console = results_console()
    console.print(*headline(record), *record["caveats"], sep="\n", soft_wrap=True)
    console.print(f"\nOpen {config.out / 'plan.html'}", soft_wrap=True)


def swept(
    config: PlanConfig,
    planned: Subject,
    policies: Mapping[str, str],
    sizes: Sequence[float],
    windows: int,
    status: Console,
) -> tuple[list[Trial], Choice]:
    """Every allocator on every size, and the one to take.

    Sizes that nobody listed have gaps: those below the choice are halved until it is on the fewest GPUs.
    """
    play, names = partial(trial, planned, windows), list(policies)

    def played(sizes: Sequence[float], on: str) -> list[Trial]:
        tasks = [(name, given, gpus) for name, given in policies.items() for gpus in sizes]
        return config.share(play, tasks, f"Playing each allocator on {on}", status)

    trials = played(sizes, "each number of GPUs")
    choice = choose(trials, config.attainment)
    while config.sweep is None and choice.meets and (between := untried(trials, choice.trial)) is not None:
        trials += played([between], f"{between:g} GPUs")
        trials.sort(key=lambda each: (names.index(each.policy), each.gpus))
        choice = choose(trials, config.attainment)
    return trials, choice


def day_of(planned: Subject, chosen: Trial) -> Evaluation:
    """The first day of the log under the allocator to take, on its platform, without a break."""
    scenario = planned.day(chosen.gpus)
    policy = load_policies(chosen.given, planned.scenario)[0]
    return evaluate(chosen.policy, policy, scenario, 1, SEED, kind=chosen.kind)


def take_away(planned: Subject, choice: Choice, directory: Path, config: PlanConfig) -> dict[str, Any]:
    """Write what a control loop needs, and say how it is used.

    The platform as a scenario file, on which every command plays the log; a learned allocator's file.
    """
    chosen = choice.trial
    scenario = planned.at(chosen.gpus)
    assert scenario.trace is not None
    trace = scenario.trace.model_copy(update={"path": config.log.resolve(), "split": "train"})
    said = f"{chosen.gpus:g} GPUs for {config.log.name}, as planned by: {command(config)}"
    write_scenario(directory / SCENARIO, scenario.model_copy(update={"trace": trace}), [said])
    learned = {"scenario": config.out / SCENARIO, "allocator": "ppo-residual", "out": config.out / "learned"}
    taken: dict[str, Any] = {
        "scenario": SCENARIO,
        "file": None,
        "command": None,
        "train": None if scenario.nodes else command_line("train", **learned),
    }
    if chosen.kind != "learned":
        tuned_for = config.scenario or scenario.name
        made = f"import gpualloc_env\n\ndecide = gpualloc_env.policy({chosen.policy!r}, {tuned_for!r})"
    else:
        given = policy_file(chosen.given)
        if given.suffix in EXPORTED:
            shutil.copyfile(given, directory / ALLOCATOR)
            taken["file"] = ALLOCATOR
            priced = read(given)[0].priced
        else:
            priced = takes_bill(read_transform(given).settings)
            taken["command"] = command_line("export", given, out=config.out / ALLOCATOR)
        made = OF_A_CLUSTER if scenario.nodes else OF_A_POOL.format(told=TOLD if priced else "")
    shares = "each GPU, by agent and GPU" if scenario.nodes else "all GPUs, by agent"
    return {**taken, "python": f"{made}\nshares = decide(view)  # fractions of {shares}"}


def command(config: PlanConfig) -> str:
    """The command line that asks for this plan."""
    return command_line("plan", config.log, **asked(config, PlanConfig(config.log)))


if __name__ == "__main__":
    run(main, PlanConfig)

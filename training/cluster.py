"""Make a cluster of a request log that names a model in each request: its models, by popularity, on nodes.

python -m training.cluster requests.csv --nodes 2 --gpus 4 --out my-cluster.toml
"""

import os
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from gpualloc_env.scenario.agents import Agent
from gpualloc_env.scenario.clusters import TIERS
from gpualloc_env.scenario.loading import validated
from gpualloc_env.scenario.models import MODELS, PUBLISHED_NAMES, REFERENCE_GPU, look_up
from gpualloc_env.simulation.state import AnyArray
from gpualloc_env.traces.formats import read_log
from gpualloc_env.traces.log import Log, TimeUnit, TraceError
from gpualloc_env.traces.reading import refuse_pipe
from training.cli import results_console, run
from training.fitting.fitted_scenario import check_out, write_scenario
from training.limits import Limits
from training.reporting.report import print_tables

KNOWN = {
    **{name: name for name in MODELS},
    **{long.replace("/", "-"): m for long, m in PUBLISHED_NAMES.items()},
}
"""Models of the catalogue by the names that a log may have for them."""
MILLISECOND = {"iteration_s": 0.0, "iteration_s_per_call": 0.0, "prefill_s_per_token": 1e-3, "max_batch": 1}
"""What serves calls whose time on a whole GPU is known, one after the other: a token is a millisecond."""


@dataclass(frozen=True)
class ClusterConfig:
    """Make a cluster of a request log that names a model in each request."""

    log: tyro.conf.Positional[Path]
    """A log of one of the formats that name a model."""
    out: Path
    """The TOML file to write; it must not exist yet."""
    models: Annotated[int, Limits(1)] = 64
    """The most popular models, an agent each; requests for others are left out, and counted."""
    model: str | None = None
    """The model of the catalogue whose size and times those have that it does not know by their names."""
    model_mb: Annotated[float | None, Limits(0)] = None
    """Size of the weights of each model [MB], where the log has times of execution in place of tokens."""
    calls: Annotated[int, Limits(1)] = 8
    """Calls of mean length for which an instance keeps room, and the most that it runs at once."""
    slo_s: Annotated[float, Limits(0, open_low=True)] = 10.0
    """Service objective of a call [s]."""
    nodes: Annotated[int, Limits(1)] = 2
    """Nodes of the cluster."""
    gpus: Annotated[int, Limits(1)] = 4
    """GPUs of each."""
    gpu: str = REFERENCE_GPU
    """Their name in the catalogue."""
    host_memory_mb: Annotated[float, Limits(0)] = 256_000.0
    """Memory of each node's host for models that sleep [MB]."""
    steps: Annotated[int, Limits(1)] = 300
    """Steps of 1 s in an episode, which is a window of the log; a short log has windows for fewer alone."""
    time_unit: TimeUnit | None = None
    """Unit of the log's times where they are numbers; by default what its format and its times say."""


def main(config: ClusterConfig) -> None:
    """Read the log, write the scenario, and say what the models are."""
    check_out(config.out)
    if config.model is not None:
        look_up(config.model, REFERENCE_GPU, 1, 1)
    refuse_pipe(config.log, "making a cluster")
    log = read_log(config.log, config.time_unit)
    if log.agent is None or log.prompt_tokens is None:
        raise TraceError(
            f"{log.path} does not name a model and its tokens in each request; give a log with the columns "
            "time_s, model, prompt_tokens, output_tokens"
        )
    requests = np.bincount(log.agent)
    popular = np.argsort(-requests, kind="stable")[: config.models].tolist()
    tables = [agent_of(log, log.agent == code, log.agent_names[code], config) for code in popular]
    node = {"gpus": config.gpus, "gpu": config.gpu, "host_memory_mb": config.host_memory_mb}
    data: dict[str, Any] = {
        "name": config.out.stem,
        "description": f"The requests of {log.path.name} for its models on {config.nodes} nodes.",
        "service": "requests",
        "steps": config.steps,
        "agents": tables,
        "platform": TIERS,
        "nodes": [node] * config.nodes,
        "network": {"hop_s": 0.01, "network_mb_per_s": 1000.0},
        "objective": {"latency": 0.1, "cost": 1.0, "throughput": 0.2},
        "trace": {"path": config.log, "leave_out_others": True, "time_unit": config.time_unit},
    }
    scenario = validated(data, str(config.log))
    agents = scenario.agents
    taken = [agent.model_mb + agent.kv_tokens * agent.kv_mb_per_token for agent in agents]
    there = sum(node.gpus * node.memory_mb for node in scenario.nodes)
    if max(taken) > scenario.nodes[0].memory_mb:
        raise ValueError(
            f"model {agents[int(np.argmax(taken))].name!r} takes {max(taken):,.0f} MB and a GPU has "
            f"{scenario.nodes[0].memory_mb:,.0f}, so it could stand nowhere; give another --gpu or fewer "
            "--calls"
        )
    load = scenario.utilisation(requests[popular] / log.span_s)
    said = (
        f"{scenario.windows.accounting}; load {load:.3g} at its own times; one instance of each model takes "
        f"{sum(taken) / there:.2f} of the GPUs' memory"
    )
    # The file says where the log is from its own folder.
    written = scenario.trace.model_copy(update={"path": os.path.relpath(config.log, config.out.parent)})  # pyright: ignore
    write_scenario(config.out, scenario.model_copy(update={"trace": written}), [said])
    console = results_console()
    rows = [row(agent, int(requests[code])) for code, agent in zip(popular, agents, strict=True)]
    print_tables(console, {f"The {len(agents)} most popular of {len(requests)} models": rows})
    console.print(f"{said}.\nScenario in {config.out}", soft_wrap=True)


def agent_of(log: Log, own: AnyArray, name: str, config: ClusterConfig) -> dict[str, Any]:
    """The table of an agent of a model whose requests are `own`, (n,) bool."""
    assert log.prompt_tokens is not None
    timed = log.output_tokens is None
    prompt = log.prompt_tokens[own]
    output = np.ones_like(prompt) if log.output_tokens is None else np.maximum(log.output_tokens[own], 1)
    model = KNOWN.get(name, config.model)
    if timed and config.model_mb is None:
        raise ValueError(f"{log.path} has times of execution; give the size of its models with --model-mb")
    if not timed and model is None:
        raise ValueError(
            f"{log.path}: model {name!r} is not in the catalogue, which has {', '.join(KNOWN)}; say with "
            "--model which of them the unknown ones are like"
        )
    sizes: dict[str, Any] = {"model": model, "gpu": REFERENCE_GPU, "max_batch": config.calls}
    mean = float(prompt.mean() + output.mean())
    room = max(int((prompt + output).max()), ceil(config.calls * mean))
    return {
        **({**MILLISECOND, "model_mb": config.model_mb} if timed else sizes),
        "name": name,
        "prompt_tokens": float(prompt.mean()),
        "output_tokens": float(output.mean()),
        "kv_tokens": room,
        "min_share": 0.1,
        "slo_s": config.slo_s,
    }


def row(agent: Agent, requests: int) -> dict[str, str]:
    """A line of the printed table."""
    return {
        "model": agent.name,
        "requests": str(requests),
        "like": agent.model or "",
        "prompt": f"{agent.prompt_tokens:.0f}",
        "output": f"{agent.output_tokens:.0f}",
        "weights\n[MB]": f"{agent.model_mb:,.0f}",
        "keys, values\n[MB]": f"{agent.kv_tokens * agent.kv_mb_per_token:,.0f}",
    }


if __name__ == "__main__":
    run(main, ClusterConfig)

"""The registered scenarios of clusters, which `GPUCluster-v0` plays."""

from typing import Any

from gpualloc_env.scenario.agents import Agent, language_agent
from gpualloc_env.scenario.nodes import Network, Node
from gpualloc_env.scenario.objective import Objective
from gpualloc_env.scenario.platform import Platform
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.scenario.tasks import Workflow
from gpualloc_env.scenario.traffic import Burst, Traffic

TIERS = Platform(
    reallocation_s=0.1,
    deadband=0.02,
    container_start_s=33.9,
    load_mb_per_s=1027.0,
    wake_s=0.33,
    wake_mb_per_s=23_400.0,
    sleep_after_s=60.0,
    keep_alive_s=600.0,
)
"""Starts as measured: a cold one takes 33.9 s and 1.95 s for each billion parameters, which are 2,000 MB, a
waking model 0.33 s and 0.085 s."""
_KV_CACHES = {
    "phi-2": (12_000, 8),
    "llama-2-7b": (16_000, 8),
    "internlm-20b": (13_000, 6),
    "codellama-34b": (40_000, 16),
}
"""Capacity of the KV cache of an instance [tokens], by model, and the number of average calls that it holds;
assumed."""
_BURSTS = Burst(ratio=4, on_s=10, off_s=50)


def _agent(name: str, model: str, prompt: float, output: float, **given: Any) -> Agent:
    """An agent with the KV cache and the batch of an instance of its model."""
    kv_tokens, max_batch = _KV_CACHES[model]
    own = {"kv_tokens": kv_tokens, "max_batch": max_batch, "min_share": 0.1, "slo_s": 5.0}
    return language_agent(name, model, prompt, output, **{**own, **given})


_SMALL = (
    _agent("coordinator", "phi-2", 800, 120, min_share=0.2, slo_s=2),
    _agent("router", "phi-2", 400, 20, slo_s=1),
    _agent("vision", "phi-2", 1500, 60, priority=2),
    _agent("summary", "phi-2", 3000, 150, priority=3, slo_s=10),
    _agent("nlp", "llama-2-7b", 1500, 200, min_share=0.3, priority=2),
    _agent("chat", "llama-2-7b", 800, 300, min_share=0.3),
    _agent("search", "llama-2-7b", 2000, 100, priority=2),
    _agent("reasoning", "internlm-20b", 1500, 700, min_share=0.35, slo_s=15),
)
_KINDS = (
    ("phi-2", 800, 120),
    ("llama-2-7b", 1500, 200),
    ("phi-2", 1500, 60),
    ("llama-2-7b", 800, 300),
    ("internlm-20b", 1500, 400),
    ("phi-2", 400, 40),
    ("llama-2-7b", 2000, 100),
    ("codellama-34b", 2000, 200),
)
_FLEET = tuple(
    _agent(f"{model}-{number}", model, prompt, output, priority=1 + number % 3, slo_s=10)
    for number, (model, prompt, output) in enumerate(8 * _KINDS, start=1)
)
_TEAM = (
    _agent("coordinator", "llama-2-7b", 800, 120, min_share=0.2, slo_s=2),
    _agent("nlp", "llama-2-7b", 1500, 200, min_share=0.3, priority=2),
    _agent("vision", "phi-2", 1500, 60, min_share=0.25, priority=2),
    _agent("search", "phi-2", 3000, 80, priority=2),
    _agent("code", "codellama-34b", 1500, 300, min_share=0.35, slo_s=15),
    _agent("reasoning", "internlm-20b", 1500, 700, min_share=0.35, slo_s=15),
)

CLUSTERS = {
    scenario.name: scenario.as_registered()
    for scenario in (
        Scenario(
            name="cluster-small",
            description="Eight models on two nodes of two GPUs, which hold half of what could stand where: "
            "tests what is resident where, and what sleeps.",
            service="requests",
            agents=_SMALL,
            platform=TIERS,
            nodes=2 * (Node(gpus=2, gpu="h100", host_memory_mb=60_000),),  # pyright: ignore[reportCallIssue]
            network=Network(hop_s=0.01, network_mb_per_s=1000),
            objective=Objective(latency=0.1, cost=1.0, throughput=0.2),
            traffic=Traffic(load=0.5, mix_concentration=2, burst=_BURSTS),
        ),
        Scenario(
            name="cluster-fleet",
            description="64 models on four nodes of eight GPUs, a few of them asked for all the time and "
            "most hardly ever (Zipf 1.1): tests placement where most models are idle.",
            service="requests",
            agents=_FLEET,
            platform=TIERS,
            nodes=4 * (Node(gpus=8, gpu="h100", host_memory_mb=256_000),),  # pyright: ignore[reportCallIssue]
            network=Network(hop_s=0.01, network_mb_per_s=1000),
            objective=Objective(latency=0.1, cost=1.0, throughput=0.2),
            traffic=Traffic(
                rates_rps=tuple(rank**-1.1 for rank in range(1, len(_FLEET) + 1)), load=0.5, burst=_BURSTS
            ),
        ),
        Scenario(
            name="cluster-nodes",
            description="Tasks of a team on three nodes of different GPUs with a slow network between them: "
            "tests whether the models of a task stand near each other, on GPUs that suit them.",
            service="requests",
            agents=_TEAM,
            platform=TIERS,
            nodes=(
                Node(gpus=2, gpu="h100", host_memory_mb=100_000),  # pyright: ignore[reportCallIssue]
                Node(gpus=2, gpu="a100", host_memory_mb=100_000),  # pyright: ignore[reportCallIssue]
                Node(gpus=4, gpu="a40", host_memory_mb=100_000),  # pyright: ignore[reportCallIssue]
            ),
            network=Network(hop_s=0.2, network_mb_per_s=0.05),
            objective=Objective(latency=0.0, cost=1.0, throughput=0.0, task=0.1),
            traffic=Traffic(rates_rps=(1, 0, 0, 0, 0, 0), load=0.2, burst=_BURSTS),
            tasks=Workflow(
                entry="coordinator",
                end=0.45,
                specialists=("nlp", "vision", "search", "code", "reasoning"),
                least=1,
                most=3,
                tool_s=0.5,
            ),
        ),
    )
}

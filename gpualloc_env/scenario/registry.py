"""The registered scenarios, by name, and how to add one."""

from gpualloc_env.scenario.agents import LLM_AGENTS, SATURATING_AGENTS
from gpualloc_env.scenario.clusters import CLUSTERS
from gpualloc_env.scenario.objective import Objective
from gpualloc_env.scenario.platform import LLM, SERVERLESS
from gpualloc_env.scenario.scenario import Scenario, ScenarioError
from gpualloc_env.scenario.tasks import Sessions, Workflow
from gpualloc_env.scenario.trace import Trace
from gpualloc_env.scenario.traffic import Burst, Cycle, Surge, Traffic

_PAPER_RATES = (80.0, 40.0, 45.0, 25.0)
_FLEET = tuple(
    # The minimum shares of 16 of each kind would sum to 16 GPUs, twice what there is.
    agent.model_copy(update={"name": f"{agent.name}-{number}", "min_share": agent.min_share / 2})
    for number in range(1, 17)
    for agent in SATURATING_AGENTS
)
_TASKS_AND_BILL = Objective(latency=0.0, cost=1.0, throughput=0.0, task=0.1)

SCENARIOS = {
    scenario.name: scenario.as_registered()
    for scenario in (
        Scenario(
            name="paper",
            description="The paper's experiment: constant traffic at 3.18 times the capacity of one T4.",
            traffic=Traffic(law="constant", rates_rps=_PAPER_RATES),
            steps=100,
        ),
        Scenario(
            name="paper-overload",
            description="The paper's overload: three times its traffic; only the backlog's growth is tested.",
            traffic=Traffic(law="constant", rates_rps=tuple(3 * rate for rate in _PAPER_RATES)),
            steps=100,
        ),
        Scenario(
            name="paper-spike",
            description="The paper's spike: ten times the NLP traffic from 40 s to 50 s; tests the reaction.",
            traffic=Traffic(
                law="constant",
                rates_rps=_PAPER_RATES,
                surges=(Surge(agent="nlp", factor=10, start_s=40, end_s=50),),
            ),
            steps=1000,
            dt=0.1,
        ),
        Scenario(
            name="paper-dominance",
            description="The paper's dominance: 90 % of 190 requests/s go to NLP; tests for starvation.",
            traffic=Traffic(law="constant", rates_rps=(190 / 30, 171.0, 190 / 30, 190 / 30)),
            steps=100,
        ),
        Scenario(
            name="steady",
            description="Poisson traffic, linear GPUs, no friction: the cµ rule has the least holding cost.",
            traffic=Traffic(rates_rps=tuple(rate / 4 for rate in _PAPER_RATES)),
        ),
        Scenario(
            name="serverless",
            description="Bursts, a new mix every episode, concave throughput, cold starts, costly changes.",
            agents=SATURATING_AGENTS,
            platform=SERVERLESS,
            traffic=Traffic(load=0.8, mix_concentration=2, burst=Burst(ratio=4, on_s=10, off_s=50)),
        ),
        Scenario(
            name="bursty",
            description="Long silence, then everyone at once, as sparse and as uneven as the Azure code log: "
            "tests what is held, and kept warm, while nothing comes.",
            agents=SATURATING_AGENTS,
            platform=SERVERLESS,
            traffic=Traffic(
                rates_rps=(2, 2 / 3, 2 / 3, 2 / 3), burst=Burst(common=True, ratio=50, on_s=40, off_s=150)
            ),
            steps=600,
        ),
        Scenario(
            name="diurnal",
            description="A day of ten minutes: tests whether GPUs go back at night and are there by day.",
            agents=SATURATING_AGENTS,
            platform=SERVERLESS,
            traffic=Traffic(
                rates_rps=_PAPER_RATES, load=0.5, cycle=Cycle(amplitude=0.8, period_s=600, peak_s=300)
            ),
            steps=600,
        ),
        Scenario(
            name="workflow",
            description="Tasks that the coordinator hands to specialists and gets back: "
            "tests whether an allocator serves the agent that the others wait for.",
            agents=SATURATING_AGENTS,
            platform=SERVERLESS,
            traffic=Traffic(rates_rps=(1, 0, 0, 0), load=0.8),
            routing=((0, 0.22, 0.15, 0.18), (1, 0, 0, 0), (1, 0, 0, 0), (1, 0, 0, 0)),
        ),
        Scenario(
            name="fleet",
            description="64 agents on 8 GPUs, other ones in each episode: tests an allocator on many agents.",
            agents=_FLEET,
            agent_spread=0.3,
            platform=SERVERLESS.model_copy(update={"gpus": 8.0}),
            traffic=Traffic(load=0.8, mix_concentration=2, burst=Burst(ratio=4, on_s=10, off_s=50)),
        ),
        Scenario(
            name="trace",
            description="A request log on the serverless platform: tests an allocator on real traffic.",
            agents=SATURATING_AGENTS,
            platform=SERVERLESS,
            trace=Trace(),
            steps=30,
        ),
        Scenario(
            name="llm",
            description="Calls for four language models in bursts, a new mix every episode: "
            "tests an allocator on servers that batch.",
            service="requests",
            agents=LLM_AGENTS,
            platform=LLM,
            objective=Objective(latency=0.1, cost=1.0, throughput=0.2),
            traffic=Traffic(load=0.6, mix_concentration=2, burst=Burst(ratio=4, on_s=10, off_s=50)),
        ),
        Scenario(
            name="team",
            description="Tasks that a coordinator ends or has specialists work on in parallel: "
            "tests whether an allocator serves whom a whole task waits for.",
            service="requests",
            agents=LLM_AGENTS,
            platform=LLM,
            objective=_TASKS_AND_BILL,
            traffic=Traffic(rates_rps=(1, 0, 0, 0), load=0.6, burst=Burst(ratio=4, on_s=10, off_s=50)),
            tasks=Workflow(
                entry="coordinator",
                end=0.45,
                specialists=("nlp", "vision", "reasoning"),
                least=1,
                most=3,
                tool_s=0.5,
            ),
        ),
        Scenario(
            name="magentic",
            description="Recorded sessions of a multi-agent system, with the times that its tools took: "
            "tests an allocator on the work of real tasks.",
            service="requests",
            agents=LLM_AGENTS,
            platform=LLM,
            objective=_TASKS_AND_BILL,
            # The log's calls are longer than the agents' means: this is 0.55 of what they can serve.
            sessions=Sessions(load=0.25),
            steps=600,
        ),
    )
}


def register(scenario: Scenario) -> Scenario:
    """Add a scenario to `SCENARIOS`, or to `CLUSTERS` where it has nodes.

    Its name then stands for it in every call and command.

    A command knows it where `GPUALLOC_EXTENSIONS` names the module that registers it.

    Returns:
        What was registered. Constants that are tuned for it are kept under its name.

    Raises:
        ScenarioError: the name is taken, or would be read as the path of a file or as every scenario.
    """
    if scenario.name == "all":
        raise ScenarioError("'all' stands for every scenario in a command; give the scenario another name")
    if scenario.name in SCENARIOS or scenario.name in CLUSTERS:
        raise ScenarioError(f"scenario {scenario.name!r} is registered already; give it another name")
    if scenario.name.endswith(".toml"):
        raise ScenarioError(f"scenario {scenario.name!r} would be read as a file; leave out the .toml")
    kind = CLUSTERS if scenario.nodes else SCENARIOS
    kind[scenario.name] = scenario.as_registered()
    return kind[scenario.name]

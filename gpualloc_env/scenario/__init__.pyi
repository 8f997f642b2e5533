from .agents import LLM_AGENTS as LLM_AGENTS
from .agents import PAPER_AGENTS as PAPER_AGENTS
from .agents import SATURATING_AGENTS as SATURATING_AGENTS
from .agents import Agent as Agent
from .clusters import CLUSTERS as CLUSTERS
from .loading import load_scenario as load_scenario
from .nodes import Network as Network
from .nodes import Node as Node
from .objective import Objective as Objective
from .overrides import Overrides as Overrides
from .platform import FRICTIONLESS as FRICTIONLESS
from .platform import PLATFORMS as PLATFORMS
from .platform import SERVERLESS as SERVERLESS
from .platform import Platform as Platform
from .registry import SCENARIOS as SCENARIOS
from .registry import register as register
from .scenario import Scenario as Scenario
from .scenario import ScenarioError as ScenarioError
from .tasks import Sessions as Sessions
from .tasks import Workflow as Workflow
from .trace import Trace as Trace
from .traffic import Burst as Burst
from .traffic import Cycle as Cycle
from .traffic import Surge as Surge
from .traffic import Traffic as Traffic

__all__ = [
    "CLUSTERS",
    "FRICTIONLESS",
    "LLM_AGENTS",
    "PAPER_AGENTS",
    "PLATFORMS",
    "SATURATING_AGENTS",
    "SCENARIOS",
    "SERVERLESS",
    "Agent",
    "Burst",
    "Cycle",
    "Network",
    "Node",
    "Objective",
    "Overrides",
    "Platform",
    "Scenario",
    "ScenarioError",
    "Sessions",
    "Surge",
    "Trace",
    "Traffic",
    "Workflow",
    "load_scenario",
    "register",
]

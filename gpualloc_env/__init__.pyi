from .allocator import Allocator as Allocator
from .allocator import AllocatorError as AllocatorError
from .allocator import ClusterAllocator as ClusterAllocator
from .batch import Batch as Batch
from .doors import policy as policy
from .evaluation import evaluate as evaluate
from .parallel import parallel_env as parallel_env
from .sb3 import sb3_vec_env as sb3_vec_env
from .scenario import CLUSTERS as CLUSTERS
from .scenario import SCENARIOS as SCENARIOS
from .scenario import Agent as Agent
from .scenario import Burst as Burst
from .scenario import Cycle as Cycle
from .scenario import Network as Network
from .scenario import Node as Node
from .scenario import Objective as Objective
from .scenario import Overrides as Overrides
from .scenario import Platform as Platform
from .scenario import Scenario as Scenario
from .scenario import ScenarioError as ScenarioError
from .scenario import Sessions as Sessions
from .scenario import Surge as Surge
from .scenario import Trace as Trace
from .scenario import Traffic as Traffic
from .scenario import Workflow as Workflow
from .scenario import load_scenario as load_scenario
from .simulation import OBSERVATION_FEATURES as OBSERVATION_FEATURES
from .simulation import View as View
from .simulation import observe as observe
from .traces import TraceError as TraceError

__all__ = [
    "CLUSTERS",
    "OBSERVATION_FEATURES",
    "SCENARIOS",
    "Agent",
    "Allocator",
    "AllocatorError",
    "Batch",
    "Burst",
    "ClusterAllocator",
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
    "TraceError",
    "Traffic",
    "View",
    "Workflow",
    "evaluate",
    "load_scenario",
    "observe",
    "parallel_env",
    "policy",
    "sb3_vec_env",
]

__version__: str

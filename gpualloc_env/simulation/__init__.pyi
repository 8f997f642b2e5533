from .observation import OBSERVATION_FEATURES as OBSERVATION_FEATURES
from .observation import View as View
from .observation import observe as observe
from .state import AGENT as AGENT
from .state import EPISODE as EPISODE
from .state import INFO as INFO
from .state import OUTCOME as OUTCOME
from .state import SETTINGS as SETTINGS
from .state import STATE as STATE
from .state import TERMS as TERMS
from .state import WORTH as WORTH

__all__ = [
    "AGENT",
    "EPISODE",
    "INFO",
    "OBSERVATION_FEATURES",
    "OUTCOME",
    "SETTINGS",
    "STATE",
    "TERMS",
    "WORTH",
    "View",
    "observe",
]

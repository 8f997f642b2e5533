from .formats import FORMATS as FORMATS
from .formats import read_log as read_log
from .log import Log as Log
from .log import TraceError as TraceError
from .log import Windows as Windows
from .log import cut as cut

__all__ = [
    "FORMATS",
    "Log",
    "TraceError",
    "Windows",
    "cut",
    "read_log",
]

from .formats import FORMATS as FORMATS
from .formats import Column as Column
from .formats import Format as Format
from .formats import read_log as read_log
from .formats import register as register
from .lines import CSV as CSV
from .lines import JSON_LINES as JSON_LINES
from .lines import Layout as Layout
from .log import Log as Log
from .log import TraceError as TraceError
from .log import Windows as Windows
from .log import cut as cut

__all__ = [
    "CSV",
    "FORMATS",
    "JSON_LINES",
    "Column",
    "Format",
    "Layout",
    "Log",
    "TraceError",
    "Windows",
    "cut",
    "read_log",
    "register",
]

"""Other libraries that the package opens doors to: each is imported when its door is opened."""

from importlib import import_module
from types import ModuleType


def needed(module: str, extra: str) -> ModuleType:
    """A module of an optional library.

    Args:
        module: its name.
        extra: of this package, that installs it.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        library = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != library:
            raise
        raise ImportError(f"{library} is not installed: pip install 'gpualloc-env[{extra}]'") from None

"""Request logs: reading them, spreading their requests over agents and cutting them into episodes.

`read_log` recognises the format of a log from its first line; `cut` makes windows of it.
"""

import lazy_loader  # pyright: ignore[reportMissingTypeStubs]

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # pyright: ignore

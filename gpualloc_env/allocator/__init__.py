"""A trained allocator from a small file, as it is deployed: without torch, within guardrails.

`Allocator` decides from an observation or from raw numbers; `Shadow` logs what it would have done
beside a live one. The networks and the planners behind it are plain arrays and compiled functions.
"""

import lazy_loader  # pyright: ignore[reportMissingTypeStubs]

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # pyright: ignore

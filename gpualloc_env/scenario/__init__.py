"""Scenarios: what the agents, the GPUs, the traffic and the objective are.

Every object here is frozen and validated where it is made. `SCENARIOS` are the registered ones by
name; `load_scenario` takes a name, the path of a TOML file or a `Scenario`, and changes to it.
"""

import lazy_loader  # pyright: ignore[reportMissingTypeStubs]

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # pyright: ignore

"""What happens in an episode: the records, the draws at reset and the step.

`gpualloc_env.simulation.fluid.step` is the whole physics, from top to bottom; `state` names every
column of its records once, `observation` what a policy sees of them.
"""

import lazy_loader  # pyright: ignore[reportMissingTypeStubs]

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # pyright: ignore

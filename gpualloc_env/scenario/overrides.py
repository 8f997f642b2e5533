"""`Overrides`: what of a scenario an environment, a call or a command may change."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from gpualloc_env.scenario.model import MOST_AGENTS, Load, Number, StepLength, Steps, Unbounded, Whole
from gpualloc_env.traces.log import Split, TimeUnit


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Overrides:
    """Changes to a scenario; None leaves what the scenario has.

    The keyword arguments of `load_scenario` and of the environments, and options of every
    command, whose configurations inherit from this class.
    """

    steps: Steps | None = None
    """Steps of an episode."""
    dt: StepLength | None = None
    """Length of a step [s], 0.01 to 10; the law of the traffic stays the same."""
    load: Load | None = None
    """ρ in (0, 10] to which the traffic is rescaled; 1.0 is the platform's full capacity."""
    agents: Annotated[Whole, Field(ge=1, le=MOST_AGENTS)] | None = None
    """Number of agents: the scenario's are repeated in turn, and its GPUs scaled in proportion."""
    trace: Path | None = None
    """A request log that replaces the scenario's traffic."""
    split: Split | None = None
    """Windows of the log to play: `train`, `eval` or `all`. Commands that judge policies take `eval` where
    nothing is asked for."""
    time_unit: TimeUnit | None = None
    """Unit of the log's times where they are numbers: `s` or `ms`; by default what its format and its
    times say."""
    objective: dict[str, Number] | None = None
    """Weights that replace the scenario's, by the name of their term."""
    frictions: dict[str, Unbounded] | None = None
    """Settings of the platform that replace the scenario's, by name, as `keep_alive_s`."""

    @property
    def changes(self) -> dict[str, Any]:
        """Those that are asked for, by name."""
        each = {name: getattr(self, name) for name in NAMES}
        return {name: value for name, value in each.items() if value is not None}


NAMES = tuple(Overrides.__dataclass_fields__)

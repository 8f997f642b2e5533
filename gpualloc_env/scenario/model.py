"""What every configuration object is made of: a frozen base, and numbers with their limits.

The limits are far beyond any real platform. They keep a slip of the keyboard from becoming a
simulation that overflows or never ends.
"""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

MOST_SECONDS = 1e9  # thirty years
MOST_STEPS = 10**7
MOST_AGENTS = 10**5
MOST_GPUS = 1e6
MOST_RPS = 1e6
MOST_LOAD = 10.0
LARGEST = 1e9
SMALLEST = 1e-25  # of those above 0: observations are quotients in single precision

Check = Callable[[Any], Any]


class Model(BaseModel):
    """Base of every configuration object: frozen, keyword-only, no unknown key accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _only(kind: type[Integral] | type[Real], usual: type[int] | type[float], wanted: str) -> Check:
    """A check that refuses texts and truth values, which pydantic takes for numbers, and tiny numbers."""

    def check(value: Any) -> Any:
        # To ask an abstract class takes ten times as long, and fleets have many numbers.
        if type(value) is not usual and (isinstance(value, bool) or not isinstance(value, kind)):
            raise PydanticCustomError("number", f"input should be {wanted}")  # pyright: ignore
        size: Any = abs(value)
        if 0.0 < size < SMALLEST:
            least = f"input should be {SMALLEST:g} or more, or 0 where 0 is allowed"
            raise PydanticCustomError("number", least)  # pyright: ignore
        return value

    return check


Whole = Annotated[int, BeforeValidator(_only(Integral, int, "an integer, such as 3"))]
Number = Annotated[
    float, BeforeValidator(_only(Real, float, "a number, such as 0.5")), Field(allow_inf_nan=False)
]
Unbounded = Annotated[float, BeforeValidator(_only(Real, float, "a number, such as 0.5, or inf"))]
"""A number that may be infinite."""

Weight = Annotated[Number, Field(ge=0, le=LARGEST)]
Seconds = Annotated[Number, Field(ge=0, le=MOST_SECONDS)]
PositiveSeconds = Annotated[Number, Field(gt=0, le=MOST_SECONDS)]
Rate = Annotated[Number, Field(ge=0, le=MOST_RPS)]
Gpus = Annotated[Number, Field(ge=0, le=MOST_GPUS)]
PositiveGpus = Annotated[Number, Field(gt=0, le=MOST_GPUS)]
Steps = Annotated[Whole, Field(ge=1, le=MOST_STEPS)]
StepLength = Annotated[Number, Field(ge=0.01, le=10)]
Load = Annotated[Number, Field(gt=0, le=MOST_LOAD)]

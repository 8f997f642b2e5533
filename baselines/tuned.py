"""Constants that `python -m training.tune` has found, by scenario and policy."""

import sys
from functools import lru_cache
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TUNED = Path(__file__).with_name("tuned.toml")
Constants = dict[str, float | int]


def read_tuned(path: Path) -> dict[str, dict[str, Constants]]:
    """The constants in a file, by scenario and policy; none where there is no file yet.

    Raises:
        ValueError: the file is not TOML of that form.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from None
    for scenario, policies in tables.items():
        if not isinstance(policies, dict) or not all(isinstance(each, dict) for each in policies.values()):
            raise ValueError(f"{path}: [{scenario}] must hold one table for each policy")
    return tables


@lru_cache(maxsize=1)
def tuned() -> dict[str, dict[str, Constants]]:
    """The committed constants, by scenario and policy."""
    return read_tuned(TUNED)

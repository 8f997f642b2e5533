"""Lists of names in messages."""

from collections.abc import Sequence

MOST_SHOWN = 8


def listed(names: Sequence[str]) -> str:
    """Names with commas between them; of a long list the first ones and how many more there are."""
    if len(names) <= MOST_SHOWN:
        return ", ".join(names)
    shown = names[: MOST_SHOWN // 2]
    return f"{', '.join(shown)}, … {len(names) - len(shown)} more"

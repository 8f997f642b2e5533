"""Lists of names, and long texts, in messages."""

from collections.abc import Sequence

MOST_SHOWN = 8


def listed(names: Sequence[str]) -> str:
    """Names with commas between them; of a long list the first ones and how many more there are."""
    if len(names) <= MOST_SHOWN:
        return ", ".join(names)
    shown = names[: MOST_SHOWN // 2]
    return f"{', '.join(shown)}, … {len(names) - len(shown)} more"


def shortened(text: str, most: int = 80) -> str:
    """A text, or so many of its first letters."""
    return text if len(text) <= most else text[:most] + "…"

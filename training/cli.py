"""How a command ends when it cannot do what it was asked."""

import sys
from typing import NoReturn


def fail(error: Exception) -> NoReturn:
    """End with the message that names the mistake and its remedy."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

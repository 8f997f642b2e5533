"""The command `gpualloc`."""

import sys

from gpualloc_env.doors import NotInstalled, beside, needed


def main() -> None:
    """Run one of the commands of `training`: `gpualloc compare` is `python -m training.compare`."""
    try:
        needed("tyro", "train")
    except NotInstalled as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    beside("training.commands").main(sys.argv[1:])

"""The command `gpualloc`."""

import sys

from gpualloc_env.doors import beside, needed


def main() -> None:
    """Run one of the commands of `training`: `gpualloc compare` is `python -m training.compare`."""
    needed("tyro", "train")
    beside("training.commands").main(sys.argv[1:])

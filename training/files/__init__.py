"""Files and folders of a run: written whole or not at all, held by one process, with what made them.

It knows nothing of policies or learning; every other package may use it.
"""

from pathlib import Path

PRETRAINED = Path(__file__).parents[1] / "pretrained"
"""Where the allocators are that come with the package: a folder each, a file for each training seed."""

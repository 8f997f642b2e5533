"""All commands by name, as `gpualloc NAME` runs them, but those that work on the checkout itself."""

import ast
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from training.cli import MISTAKE, run

COMMANDS = (
    *("train", "compare", "plan", "leaderboard", "export", "ensemble", "tune", "study"),
    *("transfer", "cluster", "tiers", "fit", "validate", "record"),
    *("burst_figure", "learning_curves", "catalogue"),
)


def main(words: Sequence[str]) -> None:
    """Run the command that the first word names with the others; without one, say what there is."""
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: gpualloc COMMAND …\n\n{summaries()}\n\ngpualloc COMMAND --help explains its options.")
    elif words[0] == "--version":
        from gpualloc_env import __version__  # not for the list of commands, which says at once what there is

        print(f"gpualloc {__version__}")
    elif words[0] not in COMMANDS:
        close = get_close_matches(words[0], COMMANDS, 1)
        meant = f" (did you mean {close[0]!r}?)" if close else ""
        print(f"error: no command {words[0]!r}{meant}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(MISTAKE)
    else:
        module = import_module(f"{__package__}.{words[0]}")
        config = getattr(module, f"{words[0].title().replace('_', '')}Config")
        run(module.main, config, words[1:], prog=f"gpualloc {words[0]}")


def summaries() -> str:
    """A line for each command: the first of its file, which is not imported for it."""
    lines: list[str] = []
    for name in COMMANDS:
        spec = find_spec(f"{__package__}.{name}")
        assert spec is not None and spec.origin is not None
        text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
        lines.append(f"  {name:<17}{text.splitlines()[0]}")
    return "\n".join(lines)

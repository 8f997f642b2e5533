"""Where the tests find things."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PRETRAINED = ROOT / "training" / "pretrained"
REAL_LOGS = ROOT.parent / "shared" / "traces"
"""Request logs as they were published, which are too large to come along."""

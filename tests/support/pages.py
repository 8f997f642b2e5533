"""Code in the pages of the documentation."""

import re

FENCE = re.compile(r"^(```|:::)(.*?)\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)


def blocks(page, language):
    """The contents of the fenced blocks of a language."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [content for _, info, content in found if info.strip() == language]

"""Training, evaluation and comparison of allocators.

Each file is a command, run from a checkout as `python -m training.train`; what the commands are made of
stands in the folders, whose imports run one way: `files` ← `evaluation` ← `learning` ← `artifacts`,
and `reporting` above `evaluation`. `cli` and `limits` are how every command starts, checks its numbers and
ends.
"""

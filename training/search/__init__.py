"""The search for constants and settings: its space, its trials, and the files of what was found.

Of `training` it imports `files` and, for how options are written down, `cli`.
"""

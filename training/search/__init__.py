"""The search for constants and settings: its space, its trials, and the files of what was found.

It imports `files` alone.
"""

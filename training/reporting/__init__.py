"""Tables, files and figures of evaluations.

It imports `evaluation` and what that imports.
"""

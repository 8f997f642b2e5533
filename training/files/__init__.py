"""Files and folders of a run: written whole or not at all, held by one process, with what made them.

It knows nothing of policies or learning; every other package may use it.
"""

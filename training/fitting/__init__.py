"""A synthetic scenario fitted to a request log: bursts, cycle and rates, and how well they repeat the log.

It imports `files` alone.
"""

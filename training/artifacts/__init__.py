"""Policies by name: baselines, exported allocators and training runs, and the graph of an exported one.

It imports `learning` and what that imports.
"""

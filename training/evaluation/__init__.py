"""Policies on episodes: seeds and windows, the rollout and its metrics, intervals and verdicts.

It imports no other package of `training`.
"""

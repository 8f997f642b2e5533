"""PPO on the native batch: kinds of learned allocators, networks, actions, environments, checkpoints.

It imports `files` and `evaluation`.
"""

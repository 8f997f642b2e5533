"""PPO on the native batch: the learner, imitation, evolution, selection, curves and checkpoints.

`allocators` holds what is learned, `environments` where.

It imports `files` and `evaluation`.
"""

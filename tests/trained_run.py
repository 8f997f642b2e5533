"""A training run short enough for tests."""

TRAINED = {
    "scenario": "serverless",
    "steps": 20,
    "total_steps": 2000,
    "num_envs": 8,
    "rollout_steps": 32,
    "batch_size": 64,
    "checkpoint_every": 1000,
    "progress": False,
}

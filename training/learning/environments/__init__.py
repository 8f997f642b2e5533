"""The environments in which PPO plays: batches as vector environments, beside twins, and in variants."""

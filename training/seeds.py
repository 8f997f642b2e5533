"""Which seeds are for training; those below are for evaluation."""

# Training seeds start far above those that people evaluate on.
FIRST_TRAINING_SEED = 2**40
END_OF_SEEDS = 2**64  # where they begin again at 0

"""Which seeds are for what: evaluation [0, 2³⁹), validation [2³⁹, 2⁴⁰), training [2⁴⁰, 2⁶⁴).

Held-out episodes, on which results are reported, begin at 10000. Validation episodes choose among
the policies of a training run, so results on them would look too good.
"""

FIRST_VALIDATION_SEED = 2**39
# Training seeds start far above those that people evaluate on.
FIRST_TRAINING_SEED = 2**40
END_OF_SEEDS = 2**64  # where they begin again at 0


def check_evaluation_seeds(first: int, episodes: int) -> None:
    """Refuse episodes on which no policy may be judged.

    Raises:
        ValueError: a seed of theirs is not in [0, 2**39).
    """
    if not 0 <= first <= FIRST_VALIDATION_SEED - episodes:
        raise ValueError(
            f"seed must be at least 0, and the last of {episodes} episodes below 2**39 = "
            f"{FIRST_VALIDATION_SEED}, got {first}: the seeds from there on choose and train policies, "
            "which would look too good on them"
        )

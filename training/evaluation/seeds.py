"""Which seeds are for what: evaluation [0, 2³⁹), validation [2³⁹, 2⁴⁰), training [2⁴⁰, 2⁶⁴).

Held-out episodes, on which results are reported, begin at 10000. Validation episodes choose among
the policies of a training run, so results on them would look too good.
"""

FIRST_VALIDATION_SEED = 2**39
# Training seeds start far above those that people evaluate on.
FIRST_TRAINING_SEED = 2**40
END_OF_SEEDS = 2**64  # where they begin again at 0
SEEDS_OF_A_RUN = 2**40
LAST_RUN_SEED = END_OF_SEEDS // SEEDS_OF_A_RUN - 2
"""The highest `--seed` of a training run whose environments all have training seeds."""
SEEDS_PER_DOMAIN = 2**20
"""Between the first seeds of two variants of a scenario that are trained on side by side."""


def first_seed_of_run(seed: int) -> int:
    """Seed of the first environment of a training run; those of different runs never overlap."""
    return FIRST_TRAINING_SEED + seed * SEEDS_OF_A_RUN


def check_run_seeds(first: int, count: int, num_envs: int, domains: int = 1) -> None:
    """Refuse training runs whose environments would not all have training seeds of their own.

    Args:
        first: the seed of the first run; the others follow it.
        count: how many runs.
        num_envs: environments of a run.
        domains: variants of the scenario that share them.

    Raises:
        ValueError: the seeds are out of range, or the environments too many.
    """
    if not (0 <= first and first + count - 1 <= LAST_RUN_SEED):
        got = f"{first}" if count == 1 else f"{first} to {first + count - 1}"
        raise ValueError(
            f"seed must be from 0 to {LAST_RUN_SEED}, got {got}: the environments of a later run would have "
            "seeds from 2**64 on, which begin again with those for evaluation; give a lower seed"
        )
    if num_envs // domains > SEEDS_PER_DOMAIN or domains > SEEDS_OF_A_RUN // SEEDS_PER_DOMAIN:
        raise ValueError(
            f"num_envs = {num_envs} in {domains} domains need more seeds than a run has, {SEEDS_PER_DOMAIN} "
            f"for each of up to {SEEDS_OF_A_RUN // SEEDS_PER_DOMAIN} domains; lower num_envs"
        )


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

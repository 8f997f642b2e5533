"""Seeds of training runs never meet those on which policies are judged."""

import re

import pytest

from training.cli import call
from training.evaluation.seeds import (
    END_OF_SEEDS,
    FIRST_TRAINING_SEED,
    LAST_RUN_SEED,
    SEEDS_PER_DOMAIN,
    check_run_seeds,
    first_seed_of_run,
)
from training.study import StudyConfig
from training.study import main as study
from training.train import TrainConfig, main


def test_runs_have_seeds_of_their_own():
    assert first_seed_of_run(0) == FIRST_TRAINING_SEED and LAST_RUN_SEED == 2**24 - 2
    assert first_seed_of_run(5) == FIRST_TRAINING_SEED * 6
    assert first_seed_of_run(LAST_RUN_SEED + 1) == END_OF_SEEDS
    check_run_seeds(0, LAST_RUN_SEED + 1, 128)
    check_run_seeds(LAST_RUN_SEED, 1, SEEDS_PER_DOMAIN * 8, 8)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((2**24 - 1, 1, 1), "seed must be from 0 to 16777214, got 16777215: "),
        ((-1, 1, 1), "seed must be from 0 to 16777214, got -1: "),
        ((2**24 - 2, 2, 1), "got 16777214 to 16777215: "),
        ((0, 1, SEEDS_PER_DOMAIN + 1), "num_envs = 1048577 in 1 domains need more seeds.*lower num_envs"),
        ((0, 1, 2**21, 2**21), "in 2097152 domains need more seeds"),
    ],
)
def test_seeds_that_would_run_over_are_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        check_run_seeds(*asked)


def test_commands_refuse_them_before_any_work(tmp_path, capsys):
    for command, config in (
        (main, TrainConfig(seed=2**24 - 1, out=tmp_path / "run")),
        (main, TrainConfig(seed=2**24 - 2, seeds=2, out=tmp_path / "run")),
        (study, StudyConfig(seed=2**24 - 1, out=tmp_path / "run", file=tmp_path / "a.toml")),
    ):
        with pytest.raises(SystemExit):
            call(command, config)
        assert re.search(r"error: seed must be .*16777214", capsys.readouterr().err)
    assert not any(tmp_path.iterdir())

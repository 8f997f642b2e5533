"""The search for PPO's settings: its trials, its seeds, its file, and how it fails."""

from dataclasses import replace

import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from support.trained_run import Interruption

import training.study
from gpualloc_env import Batch
from training.cli import call
from training.cli import run as run_command
from training.evaluation.seeds import FIRST_TRAINING_SEED, FIRST_VALIDATION_SEED
from training.files.run_directory import CONFIG
from training.learning.allocators.kinds import KINDS
from training.learning.defaults import DEFAULTS, default_settings
from training.learning.learner import with_defaults
from training.search.search_space import SPACE
from training.search.trial_journal import TrialJournal
from training.search.trial_table import Trial, read_trials, write_trials
from training.search.tuned_file import read_tables
from training.study import StudyConfig, as_searched, as_trained, main
from training.train import TrainConfig

ALLOCATORS = ("ppo", "ppo-shared", "ppo-residual")
STUDIED = ("ppo", "ppo-residual")
SCENARIO = """\
description = "Two agents, two seconds"
steps = 8
dt = 0.25

[[agents]]
name = "router"
model_mb = 500
throughput_rps = 100

[[agents]]
name = "writer"
model_mb = 8000
throughput_rps = 12

[platform]
reallocation_s = 0.1
deadband = 0.02

[traffic]
law = "poisson"
rates_rps = [20, 4]
load = 0.9
"""
QUICK = {"trials": 4, "total_steps": 16_384, "seeds": 1, "validate_every": 4096, "validation_episodes": 3}
QUICK |= {"confirm_steps": 8192, "confirm_seeds": 2, "progress": False}


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenario") / "short.toml"
    path.write_text(SCENARIO)
    return str(path)


def quick(folder, scenario, **changes):
    places = {"out": folder / "study", "file": folder / "defaults.toml", "results": folder / "results"}
    return StudyConfig(**{"scenario": scenario, **QUICK, **places, **changes})


def timeless(trials):
    """Trials without the time that they took."""
    return [trial._replace(seconds=0.0) for trial in trials]


@pytest.fixture(scope="module")
def studied(tmp_path_factory, scenario):
    """The folder of a study of four trials, and the seeds that it played."""
    folder, seeds = tmp_path_factory.mktemp("studied"), []
    real = Batch.seed
    with pytest.MonkeyPatch.context() as patch:

        def seed(batch, first, mask=None):
            seeds.append(first)
            real(batch, first, mask)

        patch.setattr(Batch, "seed", seed)
        patch.setenv("SB3_LOGDIR", str(folder / "logs"))
        # Two settings may be equally good after so few steps; here another one is better.
        patch.setattr(training.study, "trained_objective", worse_defaults(training.study.trained_objective))
        main(quick(folder, scenario))
    return folder, seeds


def worse_defaults(real):
    """Trains as it should, and finds the present defaults worse than they are."""

    def objective(config, scenario, record, helpers):
        present = default_settings("ppo", "short")
        tried = as_searched({name: getattr(config, name) for name in present})
        penalty = 1.0 if tried == as_searched(present) else 0.0
        return real(config, scenario, lambda best: record(best + penalty), helpers) + penalty

    return objective


def test_the_first_trials_are_the_present_defaults_and_those_of_the_other_allocators(studied):
    folder, _ = studied
    trials = read_trials(folder / "study" / "trials.csv")
    tried, known = [trial.settings for trial in trials], []
    for allocator in ALLOCATORS:
        settings = as_searched(default_settings(allocator, "short"))
        known += [settings] if settings not in known else []
    assert len(tried) == 4 and tried[: len(known)] == known
    assert all(settings not in known for settings in tried[len(known) :])
    assert timeless(trials) == timeless(TrialJournal(folder / "study" / "trials.journal").finished)


def test_the_best_trial_meets_the_defaults_on_seeds_that_no_trial_had(studied):
    folder, _ = studied
    trials = read_trials(folder / "study" / "trials.csv")
    best = min(range(4), key=lambda k: trials[k].objective)
    assert best > 0 and [len(trial.fresh) for trial in trials] == [
        2 if k in (0, best) else 0 for k in range(4)
    ]
    runs = {str(path.parent.relative_to(folder / "study")) for path in folder.rglob("model.zip")}
    assert runs == {f"confirmation/trial-{k}/seed-{seed}" for k in (0, best) for seed in (0, 1)}


def test_no_seed_is_held_out_for_evaluation(studied):
    _, seeds = studied
    training_seeds = {FIRST_TRAINING_SEED * (1 + seed) for seed in (1000, 0, 1)}
    assert set(seeds) == training_seeds | {FIRST_VALIDATION_SEED}


def test_no_trial_leaves_a_folder_for_the_learners_own_log(studied):
    folder, _ = studied
    assert not (folder / "logs").exists()


def test_the_file_holds_a_trial_under_the_command_and_what_it_found(studied):
    folder, _ = studied
    tables = read_tables(folder / "study" / "settings.toml")
    trials = read_trials(folder / "study" / "trials.csv")
    (((_, allocator), (remark, settings)),) = tables.items()
    assert allocator == "ppo"
    assert remark.startswith("# python -m training.study --scenario ") and " --allocator ppo " in remark
    assert (
        " --trials 4 --trials-at-once 1 --total-steps 16384 --seeds 1 --seed 1000 --validate-every 4096 "
        in remark
    )
    assert f"J {trials[0].objective:.4f} -> " in remark
    assert settings in [as_trained(trial.settings) for trial in trials]
    # Nobody has asked for more.
    assert sorted(path.name for path in folder.iterdir()) == ["study"]


@pytest.mark.slow
def test_a_study_goes_on_as_if_it_had_not_been_interrupted(studied, scenario, tmp_path, monkeypatch):
    folder, _ = studied
    real = TrialJournal.add
    patched = worse_defaults(training.study.trained_objective)
    monkeypatch.setattr(training.study, "trained_objective", patched)

    def add(journal, trial):
        real(journal, trial)
        if len(journal.finished) == 2:
            raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(TrialJournal, "add", add)
        with pytest.raises(Interruption):
            main(quick(tmp_path, scenario))
    assert len(TrialJournal(tmp_path / "study" / "trials.journal").finished) == 2
    assert not (tmp_path / "study" / "settings.toml").exists()
    main(quick(tmp_path, scenario))
    again, whole = (read_trials(place / "study" / "trials.csv") for place in (tmp_path, folder))
    assert timeless(again) == timeless(whole)
    settings = [(place / "study" / "settings.toml").read_bytes() for place in (tmp_path, folder)]
    assert settings[0] == settings[1]


@pytest.mark.slow
def test_trials_side_by_side_do_not_depend_on_processes_or_interruptions(scenario, tmp_path, monkeypatch):
    few = {"trials": 5, "trials_at_once": 2, "total_steps": 8192, "confirm_steps": 4096}
    main(quick(tmp_path / "processes", scenario, **few))
    monkeypatch.setattr(StudyConfig, "workers", 1)
    real = TrialJournal.add

    def add(journal, trial):
        real(journal, trial)
        if len(journal.finished) == 3:  # in the middle of the second pair
            raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(TrialJournal, "add", add)
        with pytest.raises(Interruption):
            main(quick(tmp_path / "here", scenario, **few))
    main(quick(tmp_path / "here", scenario, **few))
    places = [tmp_path / place / "study" for place in ("processes", "here")]
    shared, alone = (timeless(read_trials(place / "trials.csv")) for place in places)
    assert shared == alone and len({str(trial.settings) for trial in shared}) == 5
    settings = [(place / "settings.toml").read_bytes() for place in places]
    assert settings[0] == settings[1] and b"--trials-at-once 2" in settings[0]


def searched(table):
    """A search that finds these trials."""

    def search(config, scenario, journal, progress):
        for trial in table:
            journal.add(trial)
        return journal.finished

    return search


@pytest.mark.parametrize(
    ("fresh", "adopt", "better", "words"),
    [
        ((0.9, 1.1), True, True, "1.0000 ± 0.1414 on 2 fresh seeds: adopted"),
        ((0.9, 1.1), False, True, "1.0000 ± 0.1414 on 2 fresh seeds: better"),
        ((1.1, 1.3), True, False, "1.2000 ± 0.1414 on 2 fresh seeds: the former settings stay"),
    ],
)
def test_only_what_fresh_seeds_confirm_is_adopted_and_only_where_it_is_asked_for(
    fresh, adopt, better, words, scenario, tmp_path, monkeypatch
):
    default = as_searched(default_settings("ppo", "short"))
    other = {**default, "gamma": 0.95}
    config = quick(tmp_path, scenario, trials=2, adopt=adopt)
    table = [Trial(default, (2.0,), False, 1.0), Trial(other, (1.5,), False, 1.0)]
    monkeypatch.setattr(training.study, "search", searched(table))
    found = {0: (1.0, 1.2), 1: fresh}
    monkeypatch.setattr(training.study, "confirmed", lambda *arguments: found[arguments[3]])
    main(config)
    found = read_tables(config.out / "settings.toml")
    ((key, (remark, settings)),) = found.items()
    assert key[1] == "ppo" and settings == as_trained(other if better else default)
    assert "J 2.0000 -> 1.5000 in 2 trials, 1.1000 ± 0.1414 -> " in remark and remark.endswith(words)
    if adopt and better:
        assert read_tables(config.file) == found
        assert [path.name for path in config.results.iterdir()] == [f"study-{key[0]}-ppo.csv"]
    else:
        assert not config.file.exists() and not config.results.exists()


def test_where_the_defaults_are_best_nothing_else_is_trained(scenario, tmp_path, monkeypatch):
    default = as_searched(default_settings("ppo-shared", "short"))
    table = [Trial(default, (1.0,), False, 1.0), Trial({**default, "epochs": 2}, (1.0,), False, 1.0)]
    monkeypatch.setattr(training.study, "search", searched(table))
    main(quick(tmp_path, scenario, allocator="ppo-shared", adopt=True))
    ((remark, settings),) = read_tables(tmp_path / "study" / "settings.toml").values()
    assert settings == as_trained(default)
    assert remark.endswith("J 1.0000, none of 2 trials was better than the former settings")
    assert not (tmp_path / "study" / "confirmation").exists() and not (tmp_path / "defaults.toml").exists()


def test_a_trial_worse_than_the_others_is_given_up(scenario, tmp_path, monkeypatch):
    played = []

    def objective(config, scenario, record, helpers):
        played.append(config)
        level = 1.0 if len(played) <= 5 else 2.0
        for _ in range(4):
            record(level)
        return level

    monkeypatch.setattr(training.study, "trained_objective", objective)
    main(quick(tmp_path, scenario, trials=7))
    trials = read_trials(tmp_path / "study" / "trials.csv")
    assert [trial.given_up for trial in trials] == [False] * 5 + [True] * 2
    assert [len(trial.curve) for trial in trials] == [4] * 5 + [2] * 2


def test_a_table_is_read_as_it_was_written(tmp_path):
    settings = as_searched(default_settings("ppo", "serverless"))
    trials = [
        Trial(settings, (1.5, 1.25), False, 12.3, (1.2, 1.3)),
        Trial({**settings, "gae_lambda": 1.0, "learning_rate": 4.2e-4}, (2.0,), True, 4.0),
    ]
    write_trials(tmp_path / "trials.csv", trials)
    assert read_trials(tmp_path / "trials.csv") == trials
    assert [path.name for path in tmp_path.iterdir()] == ["trials.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trials", "0"), "trials must be at least 1, got 0"),
        (("--confirm-seeds", "0"), "confirm_seeds must be at least 1, got 0"),
        (("--validate-every", "-1"), "validate_every must be at least 1, got -1"),
        (("--seed", "2", "--confirm-seed", "3"), "must be fresh, and the trials have 2 to 3"),
        (("--seed", "-1"), "seed must be at least 0, got -1"),
        (("--scenario", "serverles"), "did you mean 'serverless'"),
        (("--scenario", "trace"), "give its path"),
        (("--scenario", "trace", "--trace", "-"), "-: a study reads its log more than once; give a file"),
        (
            ("--scenario", "cluster-small"),
            "has nodes, and a study searches the settings of allocators for one",
        ),
    ],
)
def test_a_mistake_names_itself_and_writes_nothing(tmp_path, capsys, arguments, message):
    places = (
        "--out",
        str(tmp_path / "study"),
        "--file",
        str(tmp_path / "f.toml"),
        "--results",
        str(tmp_path),
    )
    with pytest.raises(SystemExit) as failure:
        run_command(main, StudyConfig, [*arguments, *places])
    error = capsys.readouterr().err
    assert failure.value.code == 2 and message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_results_of_a_changed_scenario_are_not_kept_as_its_own(tmp_path, capsys):
    places = {"out": tmp_path / "study", "file": tmp_path / "defaults.toml"}
    with pytest.raises(SystemExit):
        call(main, StudyConfig(load=0.5, adopt=True, **places))
    assert "training/results keeps what suits serverless as it is" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_study_is_not_continued(studied, scenario, capsys):
    folder, _ = studied
    with pytest.raises(SystemExit):
        call(main, quick(folder, scenario, seeds=2))
    assert "holds a run with seeds = 1, asked for is 2" in capsys.readouterr().err


def test_a_file_of_somebody_elses_is_refused_before_anything_is_tried(scenario, tmp_path, capsys):
    (tmp_path / "defaults.toml").write_text("[a.b]\nx = 1\n")
    with pytest.raises(SystemExit):
        call(main, quick(tmp_path, scenario, adopt=True))
    assert "has no comment above it" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_a_journal_of_something_else_is_refused(scenario, tmp_path, capsys):
    config = quick(tmp_path, scenario, trials=1)
    main(config)
    (config.out / "trials.journal").write_text("a,b\n1,2\n")
    with pytest.raises(SystemExit):
        call(main, config)
    assert "is no journal of trials" in capsys.readouterr().err
    assert (config.out / CONFIG).exists()


def within(name, value):
    searched = SPACE[name]
    if isinstance(searched, CategoricalDistribution):
        return value in searched.choices
    whole = isinstance(searched, IntDistribution)
    return searched.low <= value <= searched.high and isinstance(value, int) == whole


def test_the_committed_defaults_are_within_the_space():
    tables = read_tables(DEFAULTS)
    by_hand = {
        ("serverless", "ppo-shared"),
        ("diurnal", "ppo-residual"),
        ("workflow", "ppo-residual"),
        ("serverless", "linear-residual"),
        ("cluster-small", "ppo-cluster"),
        ("cluster-small", "linear-cluster"),
    }
    by_hand |= {(name, "ppo") for name in ("paper", "paper-overload", "paper-dominance", "paper-spike")}
    assert set(tables) == {("serverless", allocator) for allocator in STUDIED} | by_hand
    for (_, kind), (_, settings) in tables.items():
        if not KINDS[kind].studied:
            continue
        searched = as_searched(settings)
        assert set(searched) == set(SPACE) and all(within(*item) for item in searched.items())
        assert as_trained(searched) == settings


@pytest.mark.parametrize("allocator", STUDIED)
def test_the_committed_defaults_are_a_trial_of_the_committed_study(allocator):
    remark, settings = read_tables(DEFAULTS)["serverless", allocator]
    trials = read_trials(StudyConfig.results / f"study-serverless-{allocator}.csv")
    assert f" --scenario serverless --allocator {allocator} --trials {len(trials)} " in remark
    assert len(trials) >= 40
    best = min(range(len(trials)), key=lambda k: (trials[k].given_up, trials[k].objective))
    none = f"J {trials[0].objective:.4f}, none of {len(trials)} trials was better"
    found = f"J {trials[0].objective:.4f} -> {trials[best].objective:.4f} " if best else none
    assert found in remark
    assert settings == as_trained(trials[best if remark.endswith("adopted") else 0].settings)


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_what_is_asked_for_comes_before_the_defaults(allocator):
    config = with_defaults(TrainConfig(allocator=allocator, gamma=0.5, hidden=(8,)), "steady")
    settings = default_settings(allocator, "serverless")
    assert config == replace(TrainConfig(allocator=allocator), **{**settings, "gamma": 0.5, "hidden": (8,)})

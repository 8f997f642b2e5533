"""The store of a study: what is kept of it, and what a search goes on from."""

import optuna
import pytest

from training.learning.defaults import default_settings
from training.search.search_space import SPACE, make_study, rounded
from training.search.trial_journal import TrialJournal
from training.search.trial_table import Trial
from training.study import as_searched

SETTINGS = as_searched(default_settings("ppo", "serverless"))
TRIALS = (
    Trial(SETTINGS, (1.5, 1.25), False, 12.3),
    Trial({**SETTINGS, "gae_lambda": 1.0, "learning_rate": 4.2e-4}, (2.0,), True, 4.0),
)


def test_a_journal_is_read_as_it_was_written(tmp_path):
    journal = TrialJournal(tmp_path / "trials.journal")
    for trial in TRIALS:
        journal.add(trial)
    journal.confirm(0, (1.2, 1.3))
    again = TrialJournal(tmp_path / "trials.journal").finished
    assert again == journal.finished == [TRIALS[0]._replace(fresh=(1.2, 1.3)), TRIALS[1]]
    kept = [(name, type(value)) for trial in again for name, value in trial.settings.items()]
    assert kept == [(name, type(value)) for trial in TRIALS for name, value in trial.settings.items()]


def proposals(path, count, *, reopened):
    """What a search proposes; with a journal that is opened anew for each trial, or once."""
    found = []
    journal = TrialJournal(path)
    for number in range(count):
        if reopened:
            journal = TrialJournal(path)
        study = make_study(7 + number)
        study.add_trials(journal.frozen)
        settings = rounded(study.ask(SPACE).params)
        found.append(settings)
        journal.add(Trial(settings, (settings["gamma"], settings["learning_rate"]), number == 3, 0.1))
    return found


def test_a_search_proposes_the_same_from_a_journal_on_disk_as_without_an_interruption(tmp_path):
    whole = proposals(tmp_path / "whole.journal", 14, reopened=False)
    assert whole == proposals(tmp_path / "parts.journal", 14, reopened=True)
    assert len({tuple(each.items()) for each in whole}) > 10


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "trials.journal").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="is no journal of trials"):
        TrialJournal(tmp_path / "trials.journal")


def test_the_search_says_nothing_of_its_own():
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING

"""The trials of a study as Optuna's own journal, from which the study can be continued."""

from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from training.search.search_space import SPACE
from training.search.trial_table import Trial

_FRESH = "J on fresh seeds of trial {}"
_STUDY = "settings"


class TrialJournal:
    """The finished trials of a study, in a journal that holds each as soon as it is added.

    A trial that is being played is not in it, so that a study that was killed goes on from its last
    finished trial as if nothing had happened.
    """

    def __init__(self, journal: Path) -> None:
        """Open the journal, or begin one.

        Raises:
            ValueError: the file is no such journal.
        """
        try:
            storage = JournalStorage(JournalFileBackend(str(journal)))
            self._study = optuna.create_study(storage=storage, study_name=_STUDY, load_if_exists=True)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{journal} is no journal of trials ({error}); give another --out") from None

    @property
    def frozen(self) -> list[FrozenTrial]:
        """As a study is told of them."""
        return self._study.trials

    @property
    def finished(self) -> list[Trial]:
        """The trials, the first one first."""
        return [self._trial(frozen) for frozen in self._study.trials]

    def add(self, trial: Trial) -> None:
        """Keep a finished trial."""
        frozen = optuna.trial.create_trial(
            state=TrialState.PRUNED if trial.given_up else TrialState.COMPLETE,
            value=trial.objective,
            params=trial.settings,
            distributions=SPACE,
            intermediate_values=dict(enumerate(trial.curve, start=1)),
            user_attrs={"seconds": trial.seconds},
        )
        self._study.add_trial(frozen)

    def confirm(self, number: int, fresh: Sequence[float]) -> None:
        """Keep what fresh seeds have found of a trial."""
        self._study.set_user_attr(_FRESH.format(number), list(fresh))

    def _trial(self, frozen: FrozenTrial) -> Trial:
        curve = tuple(value for _, value in sorted(frozen.intermediate_values.items()))
        fresh = self._study.user_attrs.get(_FRESH.format(frozen.number), ())
        given_up = frozen.state == TrialState.PRUNED
        return Trial(dict(frozen.params), curve, given_up, frozen.user_attrs["seconds"], tuple(fresh))

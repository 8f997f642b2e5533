"""Searches change what is committed only where they are asked to, and only for the better."""

import pytest

import training.study
import training.tune
from baselines import DEFAULTS, constants_of, policy_for
from baselines.tuned import TUNED, read_tuned
from training.learning import defaults
from training.learning.defaults import default_settings
from training.search.tuned_file import Table, read_tables, write_tables
from training.study import StudyConfig, as_searched
from training.study import main as study
from training.tune import HEADER, TuneConfig, main

QUICK = {"policies": ("queue-aware",), "trials": 3, "episodes": 4, "steps": 20}


def tuned(folder, **changes):
    config = TuneConfig(**{**QUICK, "out": folder / "found.toml", "file": folder / "present.toml", **changes})
    main(config)
    return config


def test_a_search_changes_nothing_that_is_committed(tmp_path, capsys):
    before = TUNED.read_bytes()
    main(TuneConfig(**QUICK, out=tmp_path / "found.toml"))
    assert TUNED.read_bytes() == before and list(read_tuned(tmp_path / "found.toml")) == ["serverless"]
    assert "is as it was" in capsys.readouterr().out


def test_the_present_constants_are_tried_first(tmp_path, monkeypatch):
    tried = []
    real = training.tune.with_constants

    def with_constants(policy, constants):
        tried.append(constants)
        return real(policy, constants)

    monkeypatch.setattr(training.tune, "with_constants", with_constants)
    tuned(tmp_path)
    assert tried[0] == pytest.approx(constants_of(policy_for("queue-aware", "serverless")))
    assert tried[1] == pytest.approx(constants_of(DEFAULTS["queue-aware"]))


@pytest.mark.parametrize("better", [True, False])
def test_only_constants_that_fresh_episodes_confirm_are_adopted(better, tmp_path, monkeypatch):
    present = Table("# present", {"horizon_s": 5.0})
    write_tables(tmp_path / "present.toml", {("serverless", "queue-aware"): present}, HEADER)
    first = constants_of(policy_for("queue-aware", "serverless"))

    def objective(name, constants, *_, fresh=False):
        now = constants == pytest.approx(first)
        return 1.0 if now == (better or not fresh) else 0.5

    monkeypatch.setattr(training.tune, "mean_objective", objective)
    tuned(tmp_path, adopt=True)
    table = read_tables(tmp_path / "present.toml")["serverless", "queue-aware"]
    assert (table != present) == better
    assert "fresh episodes" in read_tables(tmp_path / "found.toml")["serverless", "queue-aware"].remark


@pytest.mark.parametrize("better", [True, False])
def test_constants_of_an_earlier_search_give_way_to_better_ones_alone(better, tmp_path, monkeypatch, capsys):
    earlier = Table("# earlier", {"horizon_s": 5.0})
    write_tables(tmp_path / "found.toml", {("serverless", "queue-aware"): earlier}, HEADER)

    def objective(name, constants, *_, fresh=False):
        return 1.0 if (constants == earlier.constants) == better else 0.5

    monkeypatch.setattr(training.tune, "mean_objective", objective)
    tuned(tmp_path)
    assert (read_tables(tmp_path / "found.toml")["serverless", "queue-aware"] == earlier) == (not better)
    assert ("those of queue-aware stay" in capsys.readouterr().out) == (not better)


def test_the_committed_file_is_no_place_for_what_is_found(tmp_path):
    with pytest.raises(ValueError, match="is changed by --adopt alone"):
        main(TuneConfig(**QUICK, out=TUNED))


@pytest.mark.parametrize("adopt", [True, False])
def test_a_study_is_adopted_only_where_it_is_asked_for(adopt, tmp_path, monkeypatch):
    default = as_searched(default_settings("ppo", "serverless"))
    objectives = iter([2.0, 1.5])

    def objective(config, scenario, record, helpers):
        each = next(objectives)
        record(each)
        return each

    monkeypatch.setattr(training.study, "trained_objective", objective)
    fresh = {0: (1.0, 1.2), 1: (0.9, 1.1)}
    monkeypatch.setattr(training.study, "confirmed", lambda *arguments: fresh[arguments[3]])
    before = defaults.DEFAULTS.read_bytes()
    places = {"out": tmp_path / "study", "file": tmp_path / "defaults.toml", "results": tmp_path / "results"}
    study(StudyConfig(trials=2, seeds=1, confirm_seeds=2, progress=False, adopt=adopt, **places))
    assert (tmp_path / "defaults.toml").exists() == (tmp_path / "results").exists() == adopt
    assert defaults.DEFAULTS.read_bytes() == before
    found = read_tables(tmp_path / "study" / "settings.toml")["serverless", "ppo"]
    assert found.remark.endswith("on 2 fresh seeds: " + ("adopted" if adopt else "better"))
    assert as_searched(dict(found.constants)) != default

"""What is found on a changed scenario does not pass for what suits the scenario itself."""

import pytest

from baselines import DEFAULTS, POLICIES, policy_for
from baselines.tuned import TUNED, read_tuned
from gpualloc_env import load_scenario
from training.artifacts.policies import load_policy
from training.cli import call
from training.learning.defaults import default_settings
from training.study import StudyConfig
from training.study import main as study
from training.tune import TuneConfig, main

QUICK = {"policies": ("queue-aware",), "trials": 2, "episodes": 2}
MINE = "steps = 12\n[traffic]\nrates_rps = [1, 2, 3, 4]\n"


@pytest.fixture
def namesake(tmp_path):
    """A file that is called like a registered scenario that was tuned for."""
    path = tmp_path / "bursty.toml"
    path.write_text(MINE)
    return path


def test_a_file_that_is_called_like_a_registered_scenario_has_none_of_its_constants(namesake):
    scenario = load_scenario(namesake)
    for name in POLICIES:
        assert load_policy(name, scenario) == DEFAULTS[name]
        assert load_policy(name, load_scenario("bursty", load=0.5)) == policy_for(name, "bursty")
    assert policy_for("autoscaler", "bursty") != DEFAULTS["autoscaler"]
    other = namesake.with_name("diurnal.toml")
    other.write_text(MINE)
    usual = default_settings("ppo-residual", "serverless")
    assert default_settings("ppo-residual", load_scenario(other).key) == usual
    assert default_settings("ppo-residual", "diurnal") != usual


def test_constants_tuned_for_a_file_are_its_own(namesake, tmp_path, monkeypatch):
    out = tmp_path / "tuned.toml"
    main(TuneConfig(scenario=str(namesake), **QUICK, out=out))
    key = load_scenario(namesake).key
    found = read_tuned(out)
    assert list(found) == [key]
    monkeypatch.setattr("baselines.tuned", lambda: found)
    assert load_policy("queue-aware", load_scenario(namesake, load=0.5)).horizon_s == pytest.approx(
        found[key]["queue-aware"]["horizon_s"]
    )
    namesake.write_text(MINE.replace("12", "13"))
    assert load_policy("queue-aware", load_scenario(namesake)) == DEFAULTS["queue-aware"]


def test_the_committed_files_keep_nothing_of_a_changed_scenario(tmp_path, capsys):
    before = TUNED.read_bytes()
    for command, config, option in (
        (main, TuneConfig(**QUICK, load=0.9, out=tmp_path / "a.toml", adopt=True), "file"),
        (study, StudyConfig(load=0.9, out=tmp_path / "study", adopt=True), "file"),
        (
            study,
            StudyConfig(load=0.9, out=tmp_path / "study", adopt=True, file=tmp_path / "mine.toml"),
            "results",
        ),
    ):
        with pytest.raises(SystemExit):
            call(command, config)
        said = capsys.readouterr().err
        assert "serverless as it is, not with --load 0.9" in said and f"give another --{option}" in said
    assert TUNED.read_bytes() == before and not any(tmp_path.iterdir())


def test_a_log_that_a_scenario_waits_for_is_no_change(tmp_path, azure_log):
    main(TuneConfig(scenario="trace", trace=azure_log, load=0.5, steps=5, **QUICK, out=tmp_path / "a.toml"))
    text = (tmp_path / "a.toml").read_text()
    assert f"--scenario trace --steps 5 --load 0.5 --trace {azure_log} --policies queue-aware" in text

"""The search for constants: its file, its seeds, and how it fails."""

import re
from pathlib import Path

import pytest
from support.places import REAL_LOGS

import training.tune
from baselines import CLUSTER_POLICIES, DEFAULTS, constants_of, policy_for, untuned, with_constants
from baselines.tunable import ranges
from baselines.tuned import TUNED, read_tuned
from gpualloc_env import CLUSTERS
from gpualloc_env.metrics import objectives
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.registry import SCENARIOS
from training.cli import run as run_command
from training.evaluation.evaluate import evaluate, rollout
from training.evaluation.fluid_twin import fluid_twin
from training.evaluation.seeds import FIRST_TRAINING_SEED
from training.search.tuned_file import Table, read_tables, write_tables
from training.tune import HEADER, TuneConfig, apart, main

QUICK = ("--trials", "4", "--episodes", "3")


def tune(out, *arguments):
    run_command(main, TuneConfig, [*QUICK, *arguments, "--out", str(out)])
    return read_tuned(out)


def test_the_file_holds_the_best_constants_that_were_played(tmp_path):
    out = tmp_path / "tuned.toml"
    found = tune(out, "--policies", "queue-aware")["serverless"]["queue-aware"]
    remark = out.read_text().split("\n\n")[1].split("\n")[0]
    assert remark.startswith("# python -m training.tune --scenario serverless --policies queue-aware")
    said = re.fullmatch(r".*: fresh episodes (.*) -> (.*), J (.*) -> (.*)", remark)
    fresh_before, fresh_after, before, after = map(float, said.groups())
    assert after <= before

    def mean(policy, first):
        batch = rollout(policy, load_scenario("serverless"), 3, first, record=False)
        return objectives(batch).mean()

    present = policy_for("queue-aware", "serverless")
    best = with_constants(DEFAULTS["queue-aware"], found)
    for policy, searched, fresh in ((present, before, fresh_before), (best, after, fresh_after)):
        assert mean(policy, FIRST_TRAINING_SEED) == pytest.approx(searched, abs=1e-4)
        assert mean(policy, FIRST_TRAINING_SEED + 3) == pytest.approx(fresh, abs=1e-4)


def test_fresh_episodes_of_a_log_are_other_windows():
    log = REAL_LOGS / "AzureLLMInferenceTrace_code.csv"
    scenario = load_scenario("trace", trace=log, steps=20) if log.exists() else None
    if scenario is None:
        pytest.skip("the log is not beside the project")
    windows = scenario.windows.episodes
    assert apart(200, scenario) == windows // 2 and apart(2, scenario) == 2
    assert apart(200, load_scenario("serverless")) == 200
    longest = load_scenario("trace", trace=log, steps=400, split="all")
    with pytest.raises(ValueError, match=r"one window of 400 s to tune on, .*; ask for fewer steps"):
        apart(200, longest)


def test_the_same_seed_finds_the_same_constants_and_another_seed_others(tmp_path):
    # Nothing has been tuned for it, so that any constants may be better than the present ones.
    mine = tmp_path / "mine.toml"
    mine.write_text("steps = 40\n[traffic]\nload = 0.9\nmix_concentration = 2\n")
    arguments = ("--scenario", str(mine), "--policies", "hysteresis", "autoscaler")
    first, second = (tune(tmp_path / name / "t.toml", *arguments) for name in "ab")
    assert (tmp_path / "a/t.toml").read_bytes() == (tmp_path / "b/t.toml").read_bytes()
    other = tune(tmp_path / "c.toml", *arguments, "--seed", str(FIRST_TRAINING_SEED + 7))
    assert first == second != other


def test_only_the_tuned_tables_change(tmp_path):
    out = tmp_path / "tuned.toml"
    kept = Table("# by hand", {"horizon_s": 5.0})
    write_tables(out, {("steady", "queue-aware"): kept, ("serverless", "queue-aware"): kept}, HEADER)
    tune(out, "--policies", "queue-aware")
    tables = read_tables(out)
    assert tables["steady", "queue-aware"] == kept
    assert tables["serverless", "queue-aware"].remark != "# by hand"
    assert [path.name for path in tmp_path.iterdir()] == ["tuned.toml"]


def test_a_scenario_of_ones_own_with_any_name_is_read_back(tmp_path):
    tables = {("my.own scenario", "queue-aware"): Table("# found", {"horizon_s": 1.5})}
    write_tables(tmp_path / "t.toml", tables, HEADER)
    assert read_tables(tmp_path / "t.toml") == tables


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seed", "10000"), "constants tuned on them would look too good"),
        (("--seed", str(2**40 - 1)), "seed must be at least 2**40"),
        (("--seed", str(2**64 - 2)), "end below 2**64"),
        (("--policies", "static"), "policy 'static' has no constants"),
        (("--policies", "genius"), "policy 'genius' is unknown"),
        (("--policies", "hysteresis", "hysteresis"), "more than once"),
        (("--trials", "0"), "trials must be at least 1"),
        (("--scenario", "serverles"), "did you mean 'serverless'"),
        (("--scenario", "trace"), "give its path"),
    ],
)
def test_a_mistake_names_itself_and_writes_nothing(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as failure:
        tune(tmp_path / "tuned.toml", *arguments)
    assert failure.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_played(tmp_path, monkeypatch):
    monkeypatch.setattr(training.tune, "rollout", lambda *_, **__: pytest.fail("something was played"))
    with pytest.raises(OSError, match=r"cannot write /proc/none/tuned.toml: .*; give another file"):
        main(TuneConfig(policies=("queue-aware",), out=Path("/proc/none/tuned.toml")))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["not = [toml", "[steady.queue-aware]\nhorizon_s = 1.0\n", "[steady]\nx = 1\n"]
)
def test_a_file_of_somebody_elses_is_left_alone(tmp_path, text):
    out = tmp_path / "other.toml"
    out.write_text(text)
    with pytest.raises(ValueError, match=r"other\.toml"):
        write_tables(out, {("steady", "queue-aware"): Table("# found", {"horizon_s": 1.5})}, HEADER)
    assert out.read_text() == text


def test_the_committed_constants_are_known_and_within_their_ranges():
    tables, twin = read_tables(TUNED), fluid_twin(SCENARIOS["team"]).key
    assert {scenario for scenario, _ in tables} == {
        "serverless",
        "steady",
        "bursty",
        "diurnal",
        "workflow",
        "fleet",
        "llm",
        "team",
        "magentic",
        twin,
        *CLUSTERS,
    }
    tunable = {policy for policy, each in {**DEFAULTS, **CLUSTER_POLICIES}.items() if ranges(each)}
    # What stands everywhere is never moved.
    assert {policy for _, policy in tables if "+" not in policy} == tunable - {"spread"}
    for (scenario, policy), table in tables.items():
        searched = ranges(untuned(policy, CLUSTER_POLICIES if scenario in CLUSTERS else DEFAULTS))
        assert set(table.constants) == set(searched)
        for name, value in table.constants.items():
            assert searched[name].low <= value <= searched[name].high
            assert isinstance(value, int) == searched[name].whole
        # The fluid twin is a file of the command that plays it.
        given = "runs/transfer/team-fluid.toml" if scenario == twin else scenario
        assert f"--scenario {given} --policies {policy} " in table.remark


def test_every_default_is_within_its_range():
    assert set(ranges(CLUSTER_POLICIES["lru"])) == {"window_s"}, "its target is no number"
    for policy in (*DEFAULTS.values(), *CLUSTER_POLICIES.values()):
        values = constants_of(policy)
        for name, searched in ranges(policy).items():
            assert searched.low <= values[name] <= searched.high


def test_a_rollout_gives_the_objective_that_the_metrics_give():
    scenario = load_scenario("serverless", steps=30)
    policy = DEFAULTS["autoscaler"]
    batch = rollout(policy, scenario, 4, 7, record=False)
    # A second rollout of the same instance begins without memory.
    again = evaluate("autoscaler", policy, scenario, 4, 7)
    assert objectives(batch).tolist() == again.objective.tolist()

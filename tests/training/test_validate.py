"""The simulator against queueing theory, Ciw and SimPy: the checks of `training.validate` and its files."""

import json

import numpy as np
import pytest

import training.validate
from gpualloc_env import SCENARIOS
from gpualloc_env.batch import Batch
from gpualloc_env.metrics import episode_metrics
from training.cli import run as run_command
from training.reporting.report import Estimate
from training.validate import ENTRIES, ValidateConfig, main
from training.validation import calls, closed_forms, fluid, request_checks, request_simulations
from training.validation.checks import Check, against_simulator, against_theory, controlled
from training.validation.closed_forms import md1_waits, pollaczek_khinchine, slotted_wait
from training.validation.partings import Case, burst_cases, burst_rows, step_cases
from training.validation.workflow_network import ROUTING, SERVICE_TIMES, TASK_SERVICE_S, equally_loaded

pytestmark = pytest.mark.slow

TOLERANCES = {
    "Pollaczek-Khinchine": 0.02,
    "slotted M/D/1": 0.02,
    "no wait": 1e-9,
    "(λ − μ) t": 1e-9,
    "Q / 2μ": 1e-9,
    "1.6 s + Q / 2μ": 1e-9,
    "Q₁ / μ": 1e-9,
    "piecewise linear": 1e-9,
    "traffic equations": 0.01,
    "Little's law": 1e-9,
    "dt = 1 s": 1e-6,
    "SimPy": 0.005,
    "SimPy, each": 1e-6,
}


def validate(out, *arguments):
    run_command(main, ValidateConfig, ["--out", str(out), *arguments])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The command's own files, with fewer bursts where the models part."""
    out = tmp_path_factory.mktemp("validate") / "out"
    with pytest.MonkeyPatch.context() as patch:
        cases = [case for case in burst_cases(0.1) if case.load in (0, 0.7) and case.burst < 1000]
        patch.setattr(training.validate, "burst_cases", lambda effort: cases)
        patch.setattr(training.validate, "step_cases", lambda effort: step_cases(0.1))
        validate(out, "--quick")
    assert {path.name for path in out.iterdir()} == set(ENTRIES)
    assert (out / "validation.png").stat().st_size > 50_000
    return json.loads((out / "validation.json").read_text(), parse_constant=pytest.fail)


def checks_against(results, against):
    return [check for check in results["checks"] if check["against"] == against]


@pytest.mark.slow
@pytest.mark.parametrize("against", TOLERANCES)
def test_the_fluid_agrees_with(results, against):
    checks = checks_against(results, against)
    assert checks
    for check in checks:
        difference, tolerance = check["relative_difference"], TOLERANCES[against]
        assert abs(difference["mean"]) <= tolerance, check
        assert difference["ci95"][1] - difference["ci95"][0] <= tolerance, check
        assert check["passed"] and check["tolerance"] == tolerance


@pytest.mark.slow
def test_the_fluid_agrees_with_ciw_to_three_per_cent_where_both_model_the_same_thing(results):
    checks = checks_against(results, "Ciw")
    networks = [check for check in checks if "workflow" in check["name"]]
    assert len(networks) == 2
    for check in checks:
        tolerance = 0.03 if check in networks else 0.005
        assert abs(check["relative_difference"]["mean"]) <= tolerance and check["passed"], check


@pytest.mark.slow
def test_servers_of_calls_agree_with_the_closed_forms(results):
    for against, queues in (("M/G/1", 2), ("processor sharing", 2), ("Erlang C", 1)):
        checks = checks_against(results, against)
        assert len(checks) == 3 * queues and all(check["passed"] for check in checks)
        for check in checks:
            low, high = check["relative_difference"]["ci95"]
            assert low <= 0.01 and high >= -0.01, check


def test_servers_of_calls_that_are_two_per_cent_too_fast_are_found(monkeypatch):
    server_of = calls.server_of

    def faster(queue):
        agent = server_of(queue).model_dump(exclude={"throughput_rps"})
        seconds = {name: 0.98 * agent[name] for name in ("iteration_s", "prefill_s_per_token")}
        return calls.Agent.model_validate({**agent, **seconds})

    monkeypatch.setattr(calls, "server_of", faster)
    queue = next(queue for queue in calls.QUEUES if queue.name == "M/D/1")
    measured, work = calls.sojourns(queue, 0.7, 0)
    expected = calls.expected_sojourn(queue, 0.7, work)
    assert not against_theory("sojourn", "", "s", expected, measured, calls.LOADS[0.7]).passed


def test_closed_forms_of_calls_by_hand():
    work = np.array([1.0])
    by_name = {queue.name: calls.expected_sojourn(queue, 0.5, work) for queue in calls.QUEUES}
    assert by_name["M/D/1"] == 1.5 and by_name["M/D/1-PS"] == 2.0
    # Three servers with 1.5 Erlang: C = 9/38, W = C/(3 − 1.5).
    assert by_name["M/M/3"] == pytest.approx(1 + 9 / 38 / 1.5)


@pytest.mark.slow
def test_throughputs_lie_within_their_intervals(results):
    checks = checks_against(results, "traffic equations")
    assert len(checks) == 4
    for check in checks:
        low, high = check["measured"]["ci95"]
        assert low <= check["expected"] <= high


@pytest.mark.slow
def test_littles_law_is_held_on_every_scenario(results):
    names = {check["name"].rpartition(", ")[2] for check in checks_against(results, "Little's law")}
    assert names == set(SCENARIOS)


@pytest.mark.slow
def test_the_gap_to_request_by_request_closes_as_bursts_grow(results):
    for load in (0, 0.7):
        rows = [row for row in results["partings"] if row["load"] == load]
        gaps = {row["burst"]: row["gap"]["mean"] for row in rows}
        assert gaps[1] < -0.6 and gaps[1] < gaps[10] < gaps[100] and abs(gaps[100]) < 0.08
        assert all(row["missing_service_times"] < 4 for row in rows)


@pytest.mark.slow
def test_long_steps_make_single_tasks_slower_than_they_are(results):
    gaps = [row["gap"]["mean"] for row in results["partings"] if row["load"] == 0.8]
    assert gaps == sorted(gaps) and gaps[0] < -0.6 and gaps[-1] > 2


@pytest.mark.parametrize("load", [0.5, 0.9])
@pytest.mark.parametrize("step", [1, 0.5, 0.25])
def test_steps_that_divide_a_service_time_leave_the_mean_wait_alone(load, step):
    assert slotted_wait(load, step) == pytest.approx(pollaczek_khinchine(load), rel=1e-6)


def test_pollaczek_and_khinchine_by_hand():
    assert [pollaczek_khinchine(load) for load in (0.5, 0.9)] == pytest.approx([0.5, 4.5])


def test_a_server_two_per_cent_too_fast_is_found(monkeypatch):
    def faster(throughputs, *arguments, **keywords):
        return fluid.station([1.02 * rate for rate in throughputs], *arguments, **keywords)

    for module in (closed_forms, request_checks):
        monkeypatch.setattr(module, "station", faster)
    waits = md1_waits(0.7, 0.5, 8000.0, 500.0, seed=0)
    assert not against_theory("wait", "", "s", pollaczek_khinchine(0.7), waits, 0.02).passed
    assert not any(check.passed for check in closed_forms.drains(0))
    assert not closed_forms.dd1(0)[1].passed
    assert not any(check.passed for check in request_checks.queues(0, replications=4, requests=300))
    sharing = request_checks.processor_sharing(0, replications=4, requests=300)
    assert not any(check.passed for check in sharing)


def test_a_wrong_route_is_found(monkeypatch):
    wrong = ROUTING.copy()
    wrong[0, 1] = 0.20
    monkeypatch.setattr(closed_forms, "ROUTING", wrong)
    assert not any(check.passed for check in closed_forms.traffic_equations(0))


def test_a_check_passes_only_where_it_is_known_well_enough():
    def passes(mean, half_width):
        difference = Estimate(mean, mean - half_width, mean + half_width)
        return Check("", "", "", 1.0, Estimate(1, 1, 1), difference, 0.02).passed

    assert passes(0.019, 0.009) and not passes(0.021, 0.001) and not passes(0.0, 0.011)


def test_differences_are_relative_and_paired():
    check = against_simulator("", "", "s", [1.0, 3.0], [1.1, 3.1], 0.1)
    assert check.expected == 2 and check.difference == pytest.approx((0.05, 0.05, 0.05))
    assert against_theory("", "", "s", 0.0, [0.5], 0.1, scale=5).difference.mean == pytest.approx(0.1)


def test_a_control_variate_takes_away_what_it_explains():
    assert controlled(np.array([1.0, 3.0, 5.0]), [4.0, 5.0, 6.0], 5.0) == pytest.approx([3, 3, 3])
    assert controlled(np.array([1.0, 3.0]), [5.0, 5.0], 5.0) == pytest.approx([1, 3])


@pytest.mark.parametrize("waits", request_checks.QUEUES.values(), ids=request_checks.QUEUES.keys())
def test_waits_of_three_requests_by_hand(waits):
    # The second waits for the first, the third finds the server idle.
    assert waits(np.array([1.0, 1.5, 5.0]), np.array([2.0, 1.0, 1.0])) == pytest.approx([0, 1.5, 0])


def test_shared_processor_by_hand():
    # Alone for 1 s, then half each: the first ends at 3 s, the second, of which 1 s is done, at 4 s.
    first, second = request_simulations.simpy_processor_sharing(
        [np.array([0.0]), np.array([1.0])], [2.0, 2.0]
    )
    assert first[1] == pytest.approx([3]) and second[1] == pytest.approx([3])
    # Half of the first's work is done in the first second, the other half in the next two.
    assert first[0] == pytest.approx([(0.5 + 2) / 2]) and second[0] == pytest.approx([(2 + 3.5) / 2 - 1])


def test_a_task_alone_is_served_without_a_wait():
    run = request_simulations.ciw_task_times(np.array([1e-9]), 1, SERVICE_TIMES, ROUTING, seed=0)
    assert run.mean == pytest.approx(run.service) and run.end == pytest.approx(run.mean)
    times = [
        request_simulations.ciw_task_times(np.array([1e-9]), 1, SERVICE_TIMES, ROUTING, seed).mean
        for seed in range(300)
    ]
    assert np.mean(times) == pytest.approx(TASK_SERVICE_S, abs=4 * np.std(times) / 300**0.5)


def test_task_times_are_those_of_the_metrics():
    scenario = fluid.station([10.0, 5.0, 6.0, 3.0], [1.5, 0, 0, 0], 300, 0.5, routing=ROUTING)
    totals = fluid.play(fluid.drawn(scenario, 2, seed=3), equally_loaded)
    batch = Batch(scenario, 2, record=True)
    batch.seed(3)
    batch.reset()
    for _ in range(scenario.steps):
        batch.step(equally_loaded(batch.view))
    for b in range(2):
        task_time = (totals.backlog[b].sum() + totals.transit[b]) / totals.external[b].sum()
        assert episode_metrics(batch, b)["task_latency_mean_s"] == pytest.approx(task_time, rel=1e-9)


def test_the_same_seed_gives_the_same_numbers():
    case = Case(burst=5, load=0.7, dt=0.05, tasks=50, replications=4)
    assert request_checks.parting(case, 7) == request_checks.parting(case, 7)
    assert request_checks.parting(case, 7) != request_checks.parting(case, 8)
    assert (md1_waits(0.5, 1.0, 50.0, 10.0, 3) == md1_waits(0.5, 1.0, 50.0, 10.0, 3)).all()


def test_the_table_has_a_row_for_each_burst_and_a_column_for_each_load():
    rows = burst_rows([request_checks.parting(Case(n, r, 0.1, n, 4), 0) for n in (1, 5) for r in (0, 0.5)])
    assert [row["tasks in a burst"] for row in rows] == ["1", "5"]
    assert list(rows[0])[1:] == ["one burst alone", "ρ = 0.5"]


def test_without_the_other_simulators_the_closed_forms_are_still_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.validate, "find_spec", lambda name: None if name == "simpy" else True)
    small = dict.fromkeys(("M/D/1", "M/D/1 by step"), closed_forms.dd1)
    monkeypatch.setattr(closed_forms, "STUDIES", small)
    monkeypatch.setattr(training.validate, "draw_validation", lambda path, *_: path.write_bytes(b""))
    validate(tmp_path / "out")
    output = capsys.readouterr()
    assert output.err.count("Not installed: simpy, so only the closed forms are checked") == 1
    record = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert len(record["checks"]) == 4 and record["partings"] == []
    assert record["simulators"]["simpy"] is None


def test_a_failed_check_ends_with_1_and_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.validate, "find_spec", lambda name: None)
    wrong = [against_theory("drain", "Q / 2μ", "s", 1.0, [1.1], 1e-9)]
    studies = dict.fromkeys(("M/D/1", "M/D/1 by step"), lambda seed: wrong)
    monkeypatch.setattr(closed_forms, "STUDIES", studies)
    monkeypatch.setattr(training.validate, "draw_validation", lambda path, *_: path.write_bytes(b""))
    with pytest.raises(SystemExit) as end:
        validate(tmp_path / "out")
    assert end.value.code == 1 and "drain (Q / 2μ)" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as end:
        validate(tmp_path / "file")
    assert end.value.code == 2 and "not a directory" in capsys.readouterr().err

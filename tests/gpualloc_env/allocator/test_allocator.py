"""An exported allocator keeps its limits, says when it falls back, and never disturbs a live one."""

import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.episodes import started

from baselines import adaptive
from gpualloc_env import OBSERVATION_FEATURES, load_scenario
from gpualloc_env.allocator.allocator import Allocator, Fallback
from gpualloc_env.allocator.file import Manifest
from gpualloc_env.metrics import objectives

MINIMUM = [0.1, 0.3, 0.2, 0.0]
NOT_FINITE, OUT_OF_RANGE = "the input is not finite", "the input is out of range"
INCOMPLETE = "the input is incomplete"


@pytest.fixture
def allocator(exported):
    return Allocator.load(exported["npz"])


@pytest.fixture(scope="module")
def batch():
    batch = started(load_scenario("serverless"), 50)
    for _ in range(5):
        batch.step(np.full((50, 4), 0.25))
    return batch


def fields(batch, b=0):
    """The view of one environment as plain numbers and lists, as JSON would hold it."""
    view = batch.view._asdict()
    return {name: values[b].tolist() if np.ndim(values) else float(values) for name, values in view.items()}


def fuzzed(rng, count):
    """Observations of which a fifth is sound; the others have bad numbers in one place, some or all."""
    seen = rng.random((count, 4, len(OBSERVATION_FEATURES)))
    bad = [np.nan, np.inf, -np.inf, -1.0, -1e-30, 1.0000002, 1e300, -1e300, 2.0**63, 1e39]
    kind = rng.integers(5, size=count)
    chance = np.array([0.0, 0.01, 0.1, 0.5, 1.0])[kind][:, None, None]
    return np.where(rng.random(seen.shape) < chance, rng.choice(bad, seen.shape), seen), kind == 0


@pytest.mark.parametrize("scenario", ["serverless", "bursty"])
def test_what_is_planned_to_be_free_is_free_where_only_the_observation_is_known(scenario):
    planned, costs, moves = Allocator.pretrained(f"ppo-residual-{scenario}"), [], []
    for observed in (False, True):
        batch, changed = started(load_scenario(scenario, steps=150), 10, seed=10_000), 0.0
        while not batch.done.all():
            batch.step(planned(batch.observation) if observed else planned.decide(batch.view))
            changed += batch.outcome["reallocated"].sum()
        costs.append(objectives(batch).mean())
        moves.append(changed)
    assert costs[1] == pytest.approx(costs[0], abs=0.02) and moves[1] == pytest.approx(moves[0], rel=0.03)


@pytest.mark.parametrize("least", [None, MINIMUM, [0.1, 0.3, 0.25, 0.35]])
@pytest.mark.slow
def test_the_limits_hold_on_a_hundred_thousand_fuzzed_observations(exported, least):
    allocator = Allocator.load(exported["npz"], min_shares=least)
    rng = np.random.default_rng(0)
    for _ in range(20):
        seen, sound = fuzzed(rng, 5000)
        shares = allocator(seen)
        assert shares.shape == (5000, 4) and np.isfinite(shares).all()
        assert (shares >= (0 if least is None else least)).all() and (shares <= 1).all()
        assert (shares.sum(axis=1) <= 1 + 1e-12).all()
        assert sound.any() and not sound.all()
    assert allocator.decisions == 100_000
    assert 70_000 < sum(allocator.fallbacks.values()) < 85_000
    assert set(allocator.fallbacks) == {
        Fallback(reason, by)
        for reason in (NOT_FINITE, OUT_OF_RANGE)
        for by in ("Algorithm 1", "equal shares")
    }


@pytest.mark.parametrize("kind", [bool, np.int8, np.uint64, np.float16, np.float64, np.longdouble, object])
def test_numbers_of_any_type_are_taken(allocator, kind):
    ones = np.ones((4, 19), dtype=kind)
    assert (allocator(ones) == allocator(np.ones((4, 19), dtype=np.float32))).all()
    assert not allocator.fallbacks


def test_a_number_that_is_absent_is_not_a_number(allocator):
    seen = np.full((4, 19), 0.5, dtype=object)
    seen[2, 4] = None
    assert np.isfinite(allocator(seen)).all()
    assert allocator.last == Fallback(NOT_FINITE, "Algorithm 1")


@given(
    shares=st.lists(st.floats(), min_size=4, max_size=4),
    least=st.lists(st.floats(0, 0.25), min_size=4, max_size=4),
)
@settings(max_examples=300, deadline=None)
def test_any_decision_of_a_network_is_held_to_the_limits(shares, least):
    manifest = Manifest(
        agents=("a", "b", "c", "d"), features=OBSERVATION_FEATURES, network={"kind": "any"}, training={}
    )
    allocator = Allocator(
        manifest, lambda seen, view: np.tile(np.array(shares), (len(seen), 1)), min_shares=least
    )
    taken = allocator(np.full((4, 19), 0.5, dtype=np.float32))
    assert (taken >= least).all() and (taken <= 1).all() and taken.sum() <= 1 + 1e-12
    decided = Fallback("the network's decision is not finite", "Algorithm 1")
    assert allocator.last == (None if np.isfinite(shares).all() else decided)


@pytest.mark.parametrize(
    ("shares", "least", "taken"),
    [
        # Within the limits: as they are.
        ([0.2, 0.2, 0.2, 0.2], [0.1, 0.2, 0, 0], [0.2, 0.2, 0.2, 0.2]),
        # Twice the platform: scaled to it.
        ([1.0, 0.6, 0.4, 0.0], [0, 0, 0, 0], [0.5, 0.3, 0.2, 0.0]),
        # One is raised by 0.3; the others hold 0.8 above their minimum of 0, of which 0.7 is left.
        ([0.0, 0.4, 0.4, 0.0], [0.3, 0, 0, 0], [0.3, 0.35, 0.35, 0.0]),
        # Below 0 and above 1.
        ([-3.0, 7.0, 0.0, 0.0], [0, 0, 0, 0], [0.0, 1.0, 0.0, 0.0]),
    ],
)
def test_limits_by_hand(shares, least, taken):
    manifest = Manifest(
        agents=("a", "b", "c", "d"), features=OBSERVATION_FEATURES, network={"kind": "any"}, training={}
    )
    allocator = Allocator(manifest, lambda seen, view: np.tile(shares, (len(seen), 1)), min_shares=least)
    assert allocator(np.full((4, 19), 0.5)) == pytest.approx(taken)


@pytest.mark.parametrize(
    ("least", "words"),
    [
        ([0.5, 0.5], "must hold 4 fractions, of coordinator, nlp, vision, reasoning, got shape"),
        ([0.5, 0.5, 0.5, 0.0], "sum to at most 1"),
        ([-0.1, 0, 0, 0], "sum to at most 1"),
        ([np.nan, 0, 0, 0], "sum to at most 1"),
    ],
)
def test_minimum_shares_that_cannot_hold_are_refused(exported, least, words):
    with pytest.raises(ValueError, match=words):
        Allocator.load(exported["npz"], min_shares=least)


def test_views_mappings_and_observations_give_the_same_decision(allocator, batch):
    shares = allocator(batch.observation)
    assert allocator.decide(batch.view) == pytest.approx(shares, abs=1e-7)
    assert allocator.decide(fields(batch, 3)) == pytest.approx(shares[3], abs=1e-7)
    given = fields(batch, 3) | {"queue": batch.view.queue, "slo": batch.view.slo[0], "kappa": 0.5}
    assert allocator.decide(given).shape == (50, 4)
    assert allocator(batch.observation[3]).shape == (4,)
    assert not allocator.fallbacks and allocator.last is None and allocator.decisions == 50 + 50 + 1 + 50 + 1


def test_a_platform_that_never_unloads_a_model_is_sound(allocator):
    steady = started(load_scenario("steady"), 7)
    assert steady.view.keep_alive_s == np.inf
    assert allocator.decide(steady.view) == pytest.approx(allocator(steady.observation), abs=1e-6)
    assert not allocator.fallbacks
    assert allocator.decide(fields(steady) | {"keep_alive_s": np.nan}) == pytest.approx(
        adaptive(steady.view)[0]
    )
    assert allocator.last == Fallback(NOT_FINITE, "Algorithm 1")


@pytest.mark.parametrize("field", ["queue", "rate", "share", "loading", "slo", "deadband"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [(np.nan, NOT_FINITE), (np.inf, NOT_FINITE), (-1.0, OUT_OF_RANGE), (None, INCOMPLETE)],
)
def test_a_bad_view_is_decided_by_algorithm_1(allocator, batch, caplog, field, value, reason):
    view = fields(batch, 4)
    given = {**view, field: value}
    if value is not None and isinstance(view[field], list):
        given[field] = [*view[field][:3], value]
    shares = allocator.decide(given)
    assert shares == pytest.approx(adaptive(batch.view)[4], rel=1e-12)
    assert allocator.last == Fallback(reason, "Algorithm 1")
    allocator.decide(given)
    assert allocator.fallbacks == {Fallback(reason, "Algorithm 1"): 2} and allocator.decisions == 2
    (warning,) = caplog.messages
    assert reason in warning and "decided by Algorithm 1" in warning
    assert field in warning


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"gpus": -3.0}, "gpus is -3"),
        ({"dt": -2.0}, "dt is -2"),
        ({"dt": 0.0}, "dt is 0"),
        ({"max_share": -5.0}, "max_share is -5"),
        ({"slice": np.inf}, "slice is inf"),
        ({"throughput": [1.0, 1.0, 0.0, 1.0]}, "throughput of vision is 0"),
    ],
)
def test_the_warning_of_a_fallback_names_the_field_that_is_wrong(allocator, batch, caplog, changes, named):
    allocator.decide(fields(batch) | changes)
    assert f"({named})" in caplog.text


def test_an_infinite_keep_alive_is_not_what_a_fallback_names(allocator, batch, caplog):
    allocator.decide(fields(batch) | {"keep_alive_s": np.inf, "queue": [-1.0, 0.0, 0.0, 0.0]})
    assert "(queue of coordinator is -1)" in caplog.text


def test_a_field_that_is_absent_is_named(allocator, batch, caplog):
    view = fields(batch)
    del view["rate"], view["idle"]
    assert allocator.decide(view) == pytest.approx(adaptive(batch.view)[0])
    assert "the input is incomplete (without rate, idle): decided by Algorithm 1" in caplog.text


@pytest.mark.parametrize("field", ["inflow", "min_share", "priority", "gpus"])
def test_without_what_algorithm_1_needs_all_get_equal_shares(allocator, batch, field):
    view = fields(batch)
    del view[field]
    assert allocator.decide(view).tolist() == [0.25] * 4
    assert allocator.last == Fallback(INCOMPLETE, "equal shares")


@pytest.mark.parametrize("nothing", [{"inflow": [0.0] * 4}, {"min_share": [0.0] * 4}])
def test_where_algorithm_1_gives_nothing_to_anybody_all_get_equal_shares(allocator, batch, nothing):
    assert allocator.decide(fields(batch) | {"queue": None} | nothing).tolist() == [0.25] * 4
    assert allocator.last == Fallback(INCOMPLETE, "equal shares")
    seen = batch.observation.copy()
    seen[7, 1, OBSERVATION_FEATURES.index("queue")] = np.nan
    seen[7, :, OBSERVATION_FEATURES.index(next(iter(nothing)))] = 0.0
    assert allocator(seen)[7].tolist() == [0.25] * 4
    assert allocator.last == Fallback(NOT_FINITE, "equal shares")


def test_a_bad_observation_is_decided_by_algorithm_1_from_its_own_columns(allocator, batch, caplog):
    seen = batch.observation.copy()
    seen[7, 1, OBSERVATION_FEATURES.index("oldest_age")] = np.nan
    seen[9, 2, OBSERVATION_FEATURES.index("queue")] = 1.5
    seen[11, 0, OBSERVATION_FEATURES.index("inflow")] = -0.5
    sound = np.delete(np.arange(50), [7, 9, 11])
    healthy = allocator(batch.observation)
    shares = allocator(seen)
    assert (shares[sound] == healthy[sound]).all()
    assert shares[[7, 9]] == pytest.approx(adaptive(batch.view)[[7, 9]], abs=1e-5)
    assert np.abs(shares[[7, 9]] - healthy[[7, 9]]).max() > 0.01
    assert shares[11].tolist() == [0.25] * 4
    assert allocator.fallbacks == {
        Fallback(NOT_FINITE, "Algorithm 1"): 1,
        Fallback(OUT_OF_RANGE, "Algorithm 1"): 1,
        Fallback(OUT_OF_RANGE, "equal shares"): 1,
    }
    assert "oldest_age of nlp is nan" in caplog.text and "queue of vision is 1.5" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING} and len(caplog.records) == 3


def test_a_fallback_respects_the_minimum_shares(exported, batch):
    allocator = Allocator.load(exported["npz"], min_shares=[0.4, 0, 0, 0])
    view = fields(batch) | {"queue": None, "inflow": [0.0, 9.0, 0.0, 0.0], "min_share": [0.0, 0.1, 0.0, 0.0]}
    assert allocator.decide(view) == pytest.approx([0.4, 0.6, 0, 0])


@pytest.mark.parametrize("shape", [(4,), (3, 26), (5, 19), (4, 18), (2, 5, 19), (1, 1, 4, 26), ()])
def test_an_observation_of_another_shape_is_a_mistake(allocator, shape):
    with pytest.raises(ValueError, match=r"must have shape \(4, 26\) or \(B, 4, 26\), a row for each of"):
        allocator(np.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"queue": [1.0, 2.0]},
            r"a number for each of coordinator, nlp, vision, reasoning, got \(2,\)",
        ),
        ({"rate": [1.0, 2.0]}, r"rate must have shape \(4,\) or \(B, 4\) as the others have, .* got \(2,\)"),
        ({"dt": [1.0] * 4}, r"dt must have shape \(\), got \(4,\)"),
        ({"queue": ["many"] * 4}, "queue must hold real numbers"),
        ({"queue": [1j] * 4}, "queue must hold real numbers"),
        ({"queue": ["1.0"] * 4}, "queue must hold real numbers"),
        ({"queue": [None, "1.0", 1.0, 1.0]}, "queue must hold real numbers"),
        ({"dt": "1.0"}, "dt must hold real numbers"),
    ],
)
def test_a_view_that_fits_no_agents_is_a_mistake(allocator, batch, changes, words):
    with pytest.raises(ValueError, match=words):
        allocator.decide(fields(batch) | changes)
    with pytest.raises(ValueError, match="observation must hold real numbers"):
        allocator(np.full((4, 19), "many"))


def lines(path):
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def test_a_shadow_logs_what_it_would_have_done(allocator, batch, tmp_path):
    live = np.array([0.4, 0.3, 0.2, 0.1])
    bad = batch.observation[0].copy()
    bad[0, 0] = np.nan
    with allocator.shadow(tmp_path / "shadow.jsonl") as shadow:
        assert shadow(batch.observation[0], live) is None
        shadow(fields(batch), live.tolist())
        shadow(batch.view, np.tile(live, (50, 1)))
        shadow(bad, live)
        assert shadow.errors == 0
    seen, raw, many, fallen = lines(tmp_path / "shadow.jsonl")
    own = allocator(batch.observation[0])
    assert seen["shares"] == own.tolist() and seen["live"] == live.tolist() and seen["fallback"] is None
    assert seen["distance"] == pytest.approx(np.abs(own - live).sum()) and seen["distance"] > 0
    assert raw["shares"] == pytest.approx(own, abs=1e-7) and np.shape(many["shares"]) == (50, 4)
    assert 0 < seen["latency_us"] < 1e6 and seen["time"].endswith("+00:00")
    assert fallen["fallback"] == {"reason": NOT_FINITE, "by": "Algorithm 1"}


def test_a_shadow_never_raises(allocator, batch, tmp_path, caplog):
    with allocator.shadow(tmp_path / "shadow.jsonl") as shadow:
        for state, live in [
            (None, [0.25] * 4),
            (batch.observation[0], [0.5]),
            (batch.observation[0], [np.nan] * 4),
            (batch.observation[0], "shares"),
            (np.zeros((3, 3)), [0.25] * 4),
            ({"queue": ["a"] * 4}, [0.25] * 4),
        ]:
            shadow(state, live)
        assert shadow.errors == 6
    shadow(batch.observation[0], [0.25] * 4)  # closed: nowhere left to say so
    assert shadow.errors == 7
    logged = lines(tmp_path / "shadow.jsonl")
    assert len(logged) == 6 and all(set(line) == {"time", "error"} for line in logged)
    assert sum("shadow: " in message for message in caplog.messages) == 1
    with pytest.raises(FileNotFoundError):
        allocator.shadow(tmp_path / "none" / "shadow.jsonl")

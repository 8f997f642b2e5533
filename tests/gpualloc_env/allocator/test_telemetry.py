"""What a platform counts becomes what an allocator reads; shares become what drivers take."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.places import ROOT

from baselines import POLICIES
from gpualloc_env.allocator import Allocator, Telemetry, mig_slices, mps_percentages
from gpualloc_env.allocator.partition import MIG_PROFILES
from gpualloc_env.allocator.prometheus import AllocatorCollector
from gpualloc_env.scenario.loading import load_scenario

FILE = ROOT / "training" / "pretrained" / "ppo-residual-serverless" / "seed-0.npz"
COUNTED = ("queue", "inflow", "share", "oldest_age")


# Ten steps of 0.1 s sum to less than 1 s, and unload a model all the same.
@pytest.mark.parametrize(("dt", "keep_alive_s"), [(1.0, 10.0), (0.1, 1.0), (0.3, 0.9)])
@pytest.mark.parametrize("scenario", ["serverless", "diurnal"])
def test_what_is_counted_by_name_gives_the_view_of_the_simulator(scenario, dt, keep_alive_s):
    frictions = {"keep_alive_s": keep_alive_s}
    env = gym.make("GPUAlloc-v0", scenario=scenario, steps=80, dt=dt, frictions=frictions).unwrapped
    env.reset(seed=3)
    telemetry, allocator = Telemetry(env.scenario), Allocator.load(FILE, agents=env.scenario.agent_names)
    for step in range(79):
        counted = {
            name: dict(zip(telemetry.agents, getattr(env.view, name), strict=True)) for name in COUNTED
        }
        view = telemetry.view(**counted)
        for name, value in env.view._asdict().items():
            if name in view:
                own = list(view[name].values()) if isinstance(view[name], dict) else view[name]
                assert own == pytest.approx(value, rel=1e-9, abs=1e-9), (step, name)
        assert allocator.decide(view) == pytest.approx(allocator.decide(env.view), abs=1e-6)
        # The agents lose their shares in turn for longer than a model is kept loaded.
        shares = POLICIES["static"](env.view)
        shares[step // 20] = 0.0
        env.step(shares)
    assert not allocator.fallbacks


def test_numbers_of_other_agents_and_servers_of_calls_are_refused():
    telemetry = Telemetry(load_scenario("serverless"))
    one = dict.fromkeys(telemetry.agents, 1.0)
    with pytest.raises(ValueError, match="inflow must have a number for each of coordinator, nlp"):
        telemetry.view(queue=one, inflow={"nlp": 1.0}, share=one, oldest_age=one)
    with pytest.raises(ValueError, match=r"queue must have a number for each .*, got {'nlp': None}"):
        telemetry.view(queue={**one, "nlp": None}, inflow=one, share=one, oldest_age=one)
    with pytest.raises(ValueError, match=r"queue must be a mapping .* by their names, got \[1, 2, 3, 4\]"):
        telemetry.view(queue=[1, 2, 3, 4], inflow=one, share=one, oldest_age=one)
    with pytest.raises(ValueError, match=r"loading must be a mapping .*, got \[0\.0\]"):
        telemetry.view(queue=one, inflow=one, share=one, oldest_age=one, loading=[0.0])
    with pytest.raises(ValueError, match="'team' serves calls"):
        Telemetry(load_scenario("team"))


@pytest.mark.parametrize("scenario", ["paper", "steady"])
def test_agents_of_linear_throughput_are_decided_for(scenario):
    telemetry = Telemetry(load_scenario(scenario))
    allocator = Allocator.pretrained(agents=telemetry.agents)
    one = dict.fromkeys(telemetry.agents, 1.0)
    view = telemetry.view(queue=one, inflow=one, share=dict.fromkeys(one, 0.25), oldest_age=one)
    assert set(view["kappa"].values()) == {0.0}
    allocator.decide(view)
    assert allocator.decisions == 1 and not allocator.fallbacks


@pytest.mark.parametrize("odd", [np.nan, np.inf, -500.0])
def test_an_odd_count_is_forgotten_after_its_step(odd):
    telemetry = Telemetry(load_scenario("serverless"))
    allocator = Allocator.pretrained(agents=telemetry.agents)
    one = dict.fromkeys(telemetry.agents, 1.0)
    for inflow in (one, {**one, "nlp": odd}, one, one):
        view = telemetry.view(queue=one, inflow=inflow, share=dict.fromkeys(one, 0.25), oldest_age=one)
        allocator.decide(view)
    assert view["rate"] == pytest.approx(one) and sum(allocator.fallbacks.values()) == 1


@pytest.mark.parametrize("partition", [mps_percentages, mig_slices])
def test_shares_without_names_are_refused(partition):
    with pytest.raises(
        ValueError, match=r"shares must be a mapping by the agents' names.*, got \[0\.5, 0\.5\]"
    ):
        partition([0.5, 0.5])


def test_percentages_never_exceed_the_gpu():
    for share in (-0.1, 1.5, np.nan):
        with pytest.raises(ValueError, match="the share of 'a' must be from 0 to 1, got"):
            mps_percentages({"a": share})
        with pytest.raises(ValueError, match="the share of 'a' must be from 0 to 1, got"):
            mig_slices({"a": share, "b": 0.5})
    for divided in (mps_percentages, mig_slices):
        with pytest.raises(ValueError, match="shares of one GPU sum to 2; scale them to at most 1"):
            divided({"a": 1.0, "b": 1.0})
    assert mps_percentages({"a": 0.299, "b": 0.7, "c": 0.001, "d": 0.0}) == {"a": 29, "b": 70, "c": 1}
    # The minima of one percent come from the largest.
    assert mps_percentages({"a": 0.995, "b": 0.0025, "c": 0.0025}) == {"a": 98, "b": 1, "c": 1}
    with pytest.raises(ValueError, match="101 agents have a share; use more GPUs"):
        mps_percentages({str(k): 1 / 101 for k in range(101)})


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=100))
def test_percentages_fit_whatever_the_shares(weights):
    percentages = mps_percentages({str(k): weight / sum(weights) for k, weight in enumerate(weights)})
    assert sum(percentages.values()) <= 100 and min(percentages.values()) >= 1


def test_slices_are_profiles_that_a_gpu_can_be_cut_into():
    assert mig_slices({"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}) == {"a": 2, "b": 2, "c": 2, "d": 1}
    assert mig_slices({"a": 1.0, "b": 0.0}) == {"a": 7}
    # Two of 3g have all of the memory.
    assert mig_slices({"a": 0.45, "b": 0.45, "c": 0.1}) == {"a": 2, "b": 4, "c": 1}
    with pytest.raises(ValueError, match="8 agents have a share"):
        mig_slices({str(k): 0.125 for k in range(8)})


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=7))
def test_slices_fit_whatever_the_shares(weights):
    shares = np.array(weights) / sum(weights)
    slices = mig_slices({str(k): share for k, share in enumerate(shares)})
    assert len(slices) == len(shares) and set(slices.values()) <= set(MIG_PROFILES)
    assert sum(slices.values()) <= 7 and sum(MIG_PROFILES[size] for size in slices.values()) <= 8
    assert all(
        size <= max(1, np.ceil(7 * share - 1e-9)) for size, share in zip(slices.values(), shares, strict=True)
    )


def test_prometheus_reads_decisions_and_fallbacks(tmp_path):
    client = pytest.importorskip("prometheus_client")
    registry, allocator = client.CollectorRegistry(), Allocator.load(FILE)
    with allocator.shadow(tmp_path / "shadow.jsonl") as shadow:
        AllocatorCollector(allocator, shadow, registry)
        allocator(np.full((3, *allocator._shape), np.nan))
        shadow("nonsense", np.zeros(4))
        (reason, by), count = allocator.fallbacks.most_common(1)[0]
        assert registry.get_sample_value("gpualloc_decisions_total") == allocator.decisions == 3
        labels = {"reason": reason, "by": by}
        assert registry.get_sample_value("gpualloc_fallbacks_total", labels) == count == 3
        assert registry.get_sample_value("gpualloc_shadow_errors_total") == 1

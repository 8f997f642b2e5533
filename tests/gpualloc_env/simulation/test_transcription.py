"""The compiled step agrees with a transcription of the design in plain Python, for any number of agents."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.episodes import started
from support.transcription import Transcription

from gpualloc_env import Agent, Burst, Objective, Platform, Scenario, Surge, Traffic
from gpualloc_env.simulation.state import OUTCOME, TERMS


@st.composite
def cases(draw):
    """A scenario, a seed and the shares that a policy asks for in every step."""
    count = draw(st.integers(1, 6))
    steps = draw(st.integers(1, 40))
    dt = draw(st.sampled_from([0.01, 0.1, 0.25, 0.3, 1.0, 2.5, 10.0]))

    def many(strategy):
        return draw(st.lists(strategy, min_size=count, max_size=count))

    base = many(st.sampled_from([1.0, 7.5, 30.0, 100.0, 1234.5]))
    agents = tuple(
        Agent(
            name=f"agent-{i}",
            model_mb=draw(st.sampled_from([0.0, 500.0, 3000.0, 123.4])),
            throughput_rps=base[i],
            min_share=draw(st.sampled_from([0.0, 0.1, 0.35, 1.0])),
            priority=draw(st.integers(1, 3)),
            kappa=draw(st.sampled_from([None, 0.05, 0.5, 2.0])),
            slo_s=draw(st.sampled_from([0.004, 0.1, 0.7, 1.0, 2.0, 5.0, 33.3])),
        )
        for i in range(count)
    )
    gpus = draw(st.sampled_from([0.5, 1.0, 2.0, 3.7, 8.0]))
    platform = Platform(
        gpus=gpus,
        max_share=draw(st.sampled_from([0.4, 1.0, 2.0])),
        slice=draw(st.sampled_from([None, 1 / 7, 0.25, 0.3])),
        reallocation_s=draw(st.sampled_from([0.0, 0.1, 0.35, 3.0])),
        deadband=draw(st.sampled_from([0.0, 0.02, 0.15])),
        container_start_s=draw(st.sampled_from([0.0, 0.05, 2.0])),
        load_mb_per_s=draw(st.sampled_from([1000.0, 20000.0, float("inf")])),
        keep_alive_s=draw(st.sampled_from([0.0, 0.3, 1.0, 10.0, float("inf")])),
    )
    rates = many(st.sampled_from([0.0, 0.1, 1.0, 12.5, 60.0, 400.0]))
    if not any(rates):
        rates[0] = 5.0
    law = draw(st.sampled_from(["constant", "poisson"]))
    burst = Burst(ratio=4, on_s=2, off_s=3) if draw(st.booleans()) else None
    surges = ()
    if draw(st.booleans()):
        surges = (Surge(agent="agent-0", factor=5, start_s=2.5 * dt, end_s=7.2 * dt),)
    routing = None
    if draw(st.booleans()):
        rows = np.array([many(st.sampled_from([0.0, 0.0, 0.05, 0.3, 0.9])) for _ in range(count)])
        radius = max(abs(np.linalg.eigvals(rows)))
        if radius >= 0.9:
            rows *= 0.85 / radius
        routing = tuple(map(tuple, rows.tolist()))
    weight = st.sampled_from([0.0, 0.2, 1.0])
    scenario = Scenario(
        name="drawn",
        agents=agents,
        platform=platform,
        objective=Objective(**{term: draw(weight) for term in TERMS}),
        traffic=Traffic(law=law, rates_rps=tuple(rates), burst=burst, surges=surges),
        routing=routing,
        steps=steps,
        dt=dt,
        warm=draw(st.booleans()),
    )
    ask = st.one_of(
        st.floats(0, 1),
        st.sampled_from([0.0, 0.0, 1.0, 0.25, 1 / 7, 3 / 7, 0.5]),
        st.sampled_from([-1.0, 1.5, 1e30, float("inf"), float("-inf"), 1e-12]),
    )
    row = st.lists(ask, min_size=count, max_size=count)
    # Few different rows, held for a while: shares that stay still are the common case.
    palette = draw(st.lists(row, min_size=1, max_size=4))
    chosen = draw(st.lists(st.integers(0, len(palette) - 1), min_size=steps, max_size=steps))
    return scenario, draw(st.integers(0, 2**40)), [palette[k] for k in chosen]


def mean_external_rates(scenario):
    """Mean over the T steps of the scenario's external rates, surges included, by hand."""
    horizon = scenario.steps * scenario.dt
    rates = list(scenario.traffic.rates_rps)
    for surge in scenario.traffic.surges:
        i = scenario.agent_names.index(surge.agent)
        inside = min(horizon, surge.end_s) - min(horizon, surge.start_s)
        rates[i] *= 1 + (surge.factor - 1) * inside / horizon
    return rates


def assert_close(actual, expected, what):
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9, err_msg=what)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(cases())
def test_the_compiled_step_agrees_with_the_transcription(case):
    assert_agrees_with_transcription(*case)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True)
@given(cases())
def test_the_compiled_step_agrees_with_the_transcription_in_many_cases(case):
    assert_agrees_with_transcription(*case)


@pytest.mark.parametrize("count", [1, 43, 128, pytest.param(263, marks=pytest.mark.slow)])
@pytest.mark.parametrize("agent_spread", [0.0, 0.3])
def test_one_agent_or_hundreds(count, agent_spread):
    generator = np.random.default_rng(count)
    agents = tuple(
        Agent(
            name=f"agent-{i}",
            model_mb=1000 * (i % 3),
            throughput_rps=10 + i % 7,
            min_share=0.5 / count,
            priority=1 + i % 3,
            kappa=None if i % 4 == 0 else 0.5 * (i % 4),
            slo_s=0.5 + i % 5,
        )
        for i in range(count)
    )
    routing = np.zeros((count, count))
    routing[np.arange(count - 1), np.arange(1, count)] = 0.3
    scenario = Scenario(
        name="many",
        agents=agents,
        platform=Platform(
            gpus=0.1 * count, reallocation_s=0.1, deadband=0.001, container_start_s=0.4, keep_alive_s=1
        ),
        traffic=Traffic(rates_rps=tuple(2.0 for _ in agents)),
        routing=tuple(map(tuple, routing.tolist())),
        agent_spread=agent_spread,
        steps=12,
        dt=0.5,
    )
    shares = generator.dirichlet(np.ones(count), scenario.steps)
    shares[generator.random(shares.shape) < 0.2] = 0.0
    if agent_spread:
        assert_parts_do_not_matter(scenario, shares)
    else:
        assert_agrees_with_transcription(scenario, 3, shares.tolist())


def assert_parts_do_not_matter(scenario, shares):
    """Env k of a batch is the single one, bit for bit."""
    batch = started(scenario, 5, 8)
    singles = [started(scenario, 1, 8 + k) for k in range(5)]
    for asked in shares:
        batch.step(np.tile(asked, (5, 1)))
        for k, single in enumerate(singles):
            single.step(asked[None])
            assert batch.state[k].tobytes() == single.state[0].tobytes()
            assert batch.outcome[k].tobytes() == single.outcome[0].tobytes()
            assert batch.worth[k].tobytes() == single.worth[0].tobytes()
            assert batch.observation[k].tobytes() == single.observation[0].tobytes()


def assert_agrees_with_transcription(scenario, seed, shares):
    batch = started(scenario, 2, seed, record=True)
    rates = mean_external_rates(scenario)
    books = [Transcription(scenario, batch.arrivals[:, b], rates) for b in range(2)]
    for b, book in enumerate(books):
        assert_close(batch.state["mean_rate"][b], book.mean_rate, "mean rate")
    for t in range(scenario.steps + 1):
        for b, book in enumerate(books):
            for name, expected in book.view().items():
                assert_close(getattr(batch.view, name)[b], expected, f"{name} seen at step {t}")
        if t == scenario.steps:
            break
        batch.step(np.array([shares[t], shares[-1 - t]]))
        for b, book in enumerate(books):
            expected = book.step(shares[t] if b == 0 else shares[-1 - t])
            for name in OUTCOME.names:
                assert_close(batch.history[b, t][name], expected[name], f"{name} of step {t}")
            for name in TERMS:
                assert_close(batch.worth[b][name], expected["reward_terms"][name], f"{name} of step {t}")
            assert_close(batch.reward[b], expected["reward"], f"reward of step {t}")

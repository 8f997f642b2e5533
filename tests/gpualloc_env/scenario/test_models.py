"""The catalogue of language models is what the command fits, and fills in what an agent leaves out."""

import csv
from pathlib import Path

import pytest

from gpualloc_env import Agent
from gpualloc_env.scenario.models import DATA, GPUS, MODELS, measured_starts, measured_times
from training.catalogue import CatalogueConfig, main
from training.fitting.catalogue_fit import fit_starts

# Intercept and slope of decoding [ms], slope of prefill [µs per token], as published beside the measurements.
PUBLISHED = {
    ("phi-2", "a100"): (4.4, 0.011, 25),
    ("llama-2-7b", "a100"): (9.1, 0.012, 64),
    ("llama-3-8b", "a100"): (9.8, 0.022, 66),
    ("internlm-20b", "a100"): (25.8, 0.038, 168),
    ("codellama-34b", "a100"): (44.3, 0.044, 285),
    ("phi-2", "h100"): (2.7, 0.007, 8),
    ("llama-2-7b", "h100"): (5.6, 0.006, 21),
    ("internlm-20b", "h100"): (15.2, 0.007, 61),
    ("codellama-34b", "h100"): (24.3, 0.017, 101),
    ("phi-2", "a40"): (10.2, 0.014, 50),
    ("llama-2-7b", "a40"): (23.6, 0.110, 126),
    ("internlm-20b", "a40"): (68, 0.392, 350),
    ("codellama-34b", "a40"): (124, 0.119, 601),
}


def test_the_command_makes_the_tables_that_are_shipped(tmp_path):
    main(CatalogueConfig(out=tmp_path))
    for name in ("llm_times.csv", "llm_starts.csv"):
        assert (tmp_path / name).read_text() == (DATA / name).read_text()


def test_the_fits_are_the_known_ones():
    times = measured_times()
    assert {model for model, _ in times} == set(MODELS) and {gpu for _, gpu in times} == set(GPUS)
    for pair, (intercept, slope, prefill) in PUBLISHED.items():
        found = times[pair]
        assert 1e3 * found.iteration_s == pytest.approx(intercept, abs=0.5 if intercept > 60 else 0.06)
        assert 1e3 * found.iteration_s_per_call == pytest.approx(slope, abs=6e-4)
        assert 1e6 * found.prefill_s_per_token == pytest.approx(prefill, abs=0.6)


def test_the_residual_of_each_fit_is_small():
    with Path(DATA / "llm_times.csv").open() as file:
        for row in csv.DictReader(file):
            if row["model"] != "llama-2-70b":
                assert float(row["decode_residual_s"]) < 0.1 * float(row["iteration_s"])
                assert float(row["prefill_residual_s"]) < 0.06 * 8192 * float(row["prefill_s_per_token"])


def test_starts_are_the_known_ones():
    cold = measured_starts()["cold_start"]
    assert (cold.seconds, cold.seconds_per_billion) == pytest.approx((33.9, 1.95), abs=0.02)
    assert fit_starts()["cold_start"].residual < 5.6


def test_an_agent_has_what_its_model_needs_on_its_gpu():
    agent = Agent(name="x", model="llama-2-7b", gpu="a100", prompt_tokens=1000, output_tokens=200)
    assert agent.model_mb == pytest.approx(13_480) and agent.kappa == 0.5
    assert agent.kv_mb_per_token == pytest.approx(0.524288)
    assert agent.kv_tokens == int((80_000 - 13_480) / 0.524288)
    # A context of 1000 + 100 tokens, read at 2 TB/s.
    read_s = 1100 * 0.524288e6 / 2.0e12
    assert agent.iteration_s_per_call == pytest.approx(1.167e-5 + read_s)
    assert (agent.iteration_s, agent.prefill_s_per_token) == pytest.approx((0.009057, 6.425e-5))
    # Fewer heads have keys and values of their own.
    small = Agent(name="x", model="llama-3-8b", gpu="a100", prompt_tokens=1000, output_tokens=200)
    assert small.kv_mb_per_token == pytest.approx(0.131072)


def test_what_a_table_has_comes_before_the_catalogue():
    agent = Agent(
        name="x",
        model="internlm-20b",
        gpu="h100",
        prompt_tokens=10,
        output_tokens=10,
        kappa=None,
        model_mb=7,
        kv_tokens=99,
        iteration_s_per_call=0.5,
    )
    assert (agent.kappa, agent.model_mb, agent.kv_tokens, agent.iteration_s_per_call) == (None, 7, 99, 0.5)
    assert agent.iteration_s == 0.01517
    assert Agent.model_validate(agent.model_dump()) == agent

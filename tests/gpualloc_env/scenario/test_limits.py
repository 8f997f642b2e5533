"""Limits of a scenario's numbers, and routing under which no task would end."""

import math

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from gpualloc_env import Agent, Batch, Network, Node, Objective, Platform, Scenario, Trace, Traffic
from gpualloc_env.scenario.model import SMALLEST
from gpualloc_env.scenario.tasks import Sessions, Workflow
from gpualloc_env.scenario.traffic import Burst, Cycle, Surge

UNLIMITED = {"load_mb_per_s", "keep_alive_s", "sleep_after_s", "wake_mb_per_s"}  # infinite by default
NEEDED = {
    Agent: {"name": "a", "model_mb": 1, "throughput_rps": 1},
    Platform: {},
    Objective: {},
    Node: {"memory_mb": 1, "speed": 1},
    Network: {},
    Trace: {},
    Sessions: {},
    Workflow: {"entry": "a", "end": 0.5, "specialists": ("b",)},
    Burst: {},
    Cycle: {"amplitude": 0.5, "period_s": 60},
    Surge: {"agent": "a", "factor": 2, "start_s": 0, "end_s": 1},
    Traffic: {"mix_concentration": 2, "load": 0.5},
    Scenario: {"name": "a", "traffic": Traffic(rates_rps=(1, 1, 1, 1))},
}


def numbers(model: type[BaseModel]):
    return [
        name for name, field in model.model_fields.items() if "float" in str(field) or "int" in str(field)
    ]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (model, name)
        for model in NEEDED
        for name in numbers(model)
        if name not in UNLIMITED | {"network_mb_per_s", "rates_rps", "routing", "slice"}
    ],
)
@pytest.mark.parametrize("value", [10**19, 10**400, 1e19, math.inf, math.nan, "1", True, -1])
def test_every_number_has_limits_and_is_a_number(model, name, value):
    with pytest.raises(ValidationError):
        model(**{**NEEDED[model], name: value})


@pytest.mark.parametrize("name", ["prompt_cv", "output_cv", "kv_mb_per_token", "max_batch", "kv_tokens"])
def test_a_throughput_follows_from_the_times_of_calls_alone(name):
    with pytest.raises(ValidationError, match=r"throughput_rps\n  Field required"):
        Agent(**{"name": "a", "model_mb": 100, name: 1})


@pytest.mark.parametrize(
    "name", ["iteration_s", "prompt_tokens", "output_tokens", "max_batch", "kv_tokens", "model", "gpu"]
)
@pytest.mark.parametrize("value", [10**400, 1e19, math.inf, math.nan, True, -1, [1], {}])
def test_a_model_of_the_catalogue_has_them_too(name, value):
    agent = {"name": "a", "model": "llama-2-7b", "gpu": "h100", "prompt_tokens": 9, "output_tokens": 9}
    with pytest.raises(ValidationError):
        Agent(**{**agent, name: value})


@pytest.mark.parametrize("name", sorted(UNLIMITED))
@pytest.mark.parametrize("value", [math.nan, "1", True, -1])
def test_what_may_be_infinite_is_a_number_still(name, value):
    with pytest.raises(ValidationError):
        Platform(**{name: value})
    assert getattr(Platform(**{name: math.inf}), name) == math.inf


@pytest.mark.parametrize("value", [10**19, 1e19, math.inf, math.nan, "nan", True, -1])
def test_a_slice_is_a_number_or_a_fraction(value):
    with pytest.raises(ValidationError):
        Platform(slice=value)
    assert Platform(slice="1/7").slice == 1 / 7


@pytest.mark.parametrize(
    ("decimal", "parts"), [(0.142857143, 7), (0.3333334, 3), (0.2500001, 4), (1.0000001, 1)]
)
def test_a_decimal_of_a_part_is_that_part_so_that_all_parts_fit(decimal, parts):
    assert Platform(slice=decimal).slice == 1 / parts
    assert (Platform(slice=0.143).slice, Platform(slice=0.15).slice) == (0.143, 0.15)


@pytest.mark.parametrize(
    ("model", "name"),
    [(model, name) for model in NEEDED for name in numbers(model) if name not in {"rates_rps", "routing"}],
)
def test_a_number_too_small_for_single_precision_is_refused(model, name):
    with pytest.raises(ValidationError):
        model(**{**NEEDED[model], name: 1e-300})


@pytest.mark.parametrize(
    ("name", "where"),
    [
        *((name, "agents") for name in ("slo_s", "throughput_rps", "kappa", "model_mb")),
        *((name, "platform") for name in ("load_mb_per_s", "gpus", "max_share", "reallocation_s")),
    ],
)
def test_the_smallest_numbers_leave_the_observation_within_its_bounds(name, where):
    agents = {"model_mb": 1e9, "throughput_rps": 5.0, **({name: SMALLEST} if where == "agents" else {})}
    scenario = Scenario(
        name="small",
        agents=[Agent(name=str(k), **agents) for k in range(2)],
        platform=Platform(**({name: SMALLEST} if where == "platform" else {})),
        traffic=Traffic(rates_rps=(1, 1)),
        steps=5,
    )
    batch = Batch(scenario, 1)
    batch.seed(0)
    batch.reset()
    for share in (0.5, 0.0, 0.5):
        batch.step(np.full((1, 2), share))
        assert (batch.observation >= 0).all() and (batch.observation <= 1).all()


def test_a_rate_and_a_weight_of_routing_have_limits():
    with pytest.raises(ValidationError, match="less than or equal to 1000000"):
        Traffic(rates_rps=(1e7,))
    with pytest.raises(ValidationError, match="less than or equal to 1000000"):
        routed(((0.0, 1e7), (0.0, 0.0)))


def routed(routing):
    agents = [Agent(name=f"agent-{k}", model_mb=1, throughput_rps=5) for k in range(len(routing))]
    traffic = Traffic(rates_rps=(1,) * len(agents))
    return Scenario(name="routed", agents=agents, traffic=traffic, routing=routing)


@pytest.mark.parametrize("seed", range(40))
def test_routing_that_loses_no_task_is_refused(seed):
    matrix = np.random.default_rng(seed).random((4, 4))
    matrix /= matrix.sum(axis=1, keepdims=True)
    with pytest.raises(ValidationError, match=r"routing has spectral radius 1\.000: tasks would never end"):
        routed(tuple(map(tuple, matrix.tolist())))


def test_routing_with_endless_visits_is_refused():
    with pytest.raises(ValidationError, match=r"sends a task to one agent up to 1e\+07 times"):
        routed(((1 - 1e-7,),))
    assert routed(((1 - 1e-5,),)).visits == pytest.approx(1e5)


def test_bursts_without_end_are_refused():
    burst, agent = Burst(on_s=1e-8, off_s=1e-8), Agent(name="a", model_mb=1, throughput_rps=5)
    traffic = Traffic(rates_rps=(1,), burst=burst)
    message = r"traffic\.burst would turn on and off 1e\+10 times in an episode of 100 s, .* lower steps"
    with pytest.raises(ValidationError, match=message):
        Scenario(name="a", agents=[agent], traffic=traffic, steps=100)


def test_agents_that_share_a_name_are_named_in_a_short_message():
    agents = [Agent(name=f"agent-{k}", model_mb=1, throughput_rps=5) for k in [*range(200), 7]]
    with pytest.raises(ValidationError, match="'agent-7' 2 times; rename the others"):
        Scenario(name="a", agents=agents, traffic=Traffic(load=0.5, mix_concentration=1))

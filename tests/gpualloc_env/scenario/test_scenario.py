import numpy as np
import pytest
from pydantic import ValidationError

from gpualloc_env import (
    SCENARIOS,
    Agent,
    Batch,
    Objective,
    Platform,
    Scenario,
    ScenarioError,
    Surge,
    TraceError,
    Traffic,
    load_scenario,
)
from gpualloc_env.scenario.agents import PAPER_AGENTS

COMPLETE = """
description = "two agents on a sliced GPU"
steps = 12
dt = 0.5
warm = false
routing = [[0.0, 0.5], [0.25, 0.0]]

[[agents]]
name = "writer"
model_mb = 1000
throughput_rps = 20
min_share = 0.25
priority = 2
kappa = 0.5
slo_s = 1.5

[[agents]]
name = "critic"
model_mb = 0
throughput_rps = 40

[platform]
gpus = 2
max_share = 1.5
slice = "1/7"
reallocation_s = 0.1
keep_alive_s = 30

[objective]
slo = 3

[traffic]
law = "poisson"
rates_rps = [4, 2]
load = 0.5
burst = { ratio = 3, on_s = 5, off_s = 20 }

[[traffic.surges]]
agent = "critic"
factor = 2
start_s = 1
end_s = 2
"""


@pytest.fixture
def written(tmp_path):
    """Write a TOML file and return its path."""

    def write(text, name="mine.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def utilisation_of(scenario, seed=0):
    """ρ of an episode from the mean rates that the batch keeps."""
    batch = Batch(scenario, 1)
    batch.seed(seed)
    batch.reset()
    return (batch.state["mean_rate"] / batch.agents["throughput"]).sum() / scenario.platform.gpus


def refused(match, *arguments, **changes):
    with pytest.raises(ScenarioError, match=match):
        load_scenario(*arguments, **changes)


def test_a_complete_toml_file_becomes_the_scenario_that_it_describes(written):
    scenario = load_scenario(written(COMPLETE))
    assert scenario.name == "mine" and scenario.agent_names == ("writer", "critic")
    assert scenario.agents[0] == Agent(
        name="writer",
        model_mb=1000,
        throughput_rps=20,
        min_share=0.25,
        priority=2,
        kappa=0.5,
        slo_s=1.5,
    )
    assert (scenario.steps, scenario.dt, scenario.warm) == (12, 0.5, False)
    assert scenario.platform == Platform(
        gpus=2, max_share=1.5, slice=1 / 7, reallocation_s=0.1, keep_alive_s=30
    )
    assert scenario.objective == Objective(slo=3)
    assert scenario.routing == ((0.0, 0.5), (0.25, 0.0))
    assert scenario.traffic.burst.on_s == 5 and scenario.traffic.surges[0].agent == "critic"
    assert utilisation_of(scenario) == pytest.approx(0.5)


def test_a_dumped_scenario_validates_to_itself(written):
    for scenario in (*SCENARIOS.values(), load_scenario(written(COMPLETE))):
        assert Scenario.model_validate(scenario.model_dump()) == scenario


def test_a_name_in_the_file_beats_the_name_of_the_file(written):
    assert load_scenario(written('name = "chosen"\n' + COMPLETE)).name == "chosen"


def test_a_relative_trace_path_is_relative_to_the_file(written, azure_log, monkeypatch):
    path = written('steps = 5\n[trace]\npath = "logs/azure.csv"\nload = 0.6\n')
    (path.parent / "logs").mkdir()
    (path.parent / "logs" / "azure.csv").write_bytes(azure_log.read_bytes())
    monkeypatch.chdir("/")
    scenario = load_scenario(path)
    assert scenario.trace.path == path.parent / "logs" / "azure.csv"
    assert scenario.windows.episodes > 1


def test_an_absolute_trace_path_stays_absolute(written, azure_log):
    scenario = load_scenario(written(f'[trace]\npath = "{azure_log}"\n'))
    assert scenario.trace.path == azure_log


def test_scenarios_that_have_been_played_still_compare(written, azure_log):
    looped = written(COMPLETE)
    for arguments in ({"scenario": looped}, {"scenario": "trace", "steps": 5, "trace": azure_log}):
        first, second = load_scenario(**arguments), load_scenario(**arguments)
        Batch(first, 1)
        Batch(second, 1)
        assert first == second


@pytest.mark.parametrize("name", [name for name, s in SCENARIOS.items() if s.traffic])
def test_a_load_scales_the_traffic_to_it(name):
    # Of a cycle it is the load of a whole period.
    steps = SCENARIOS[name].steps if SCENARIOS[name].traffic.cycle else 5
    for load in (0.25, 1.0, 3.0):
        scenario = load_scenario(name, load=load, steps=steps)
        assert utilisation_of(scenario) == pytest.approx(load)


@pytest.mark.parametrize("name", ["serverless", "steady"])
@pytest.mark.parametrize("count", [1, 2, 6, 16])
def test_another_number_of_agents_takes_them_in_turn_on_gpus_in_proportion(name, count):
    base, scenario = load_scenario(name), load_scenario(name, agents=count)
    names = base.agent_names
    assert scenario.agent_names == tuple(
        names[k % 4] if k < 4 else f"{names[k % 4]}-{1 + k // 4}" for k in range(count)
    )
    assert scenario.platform.gpus == pytest.approx(base.platform.gpus * count / 4)
    assert [agent.kappa for agent in scenario.agents] == [base.agents[k % 4].kappa for k in range(count)]
    if count % 4 == 0:
        assert utilisation_of(scenario) == pytest.approx(utilisation_of(base))


def test_the_same_number_of_agents_changes_nothing():
    assert load_scenario("serverless", agents=4) == load_scenario("serverless")


def test_a_log_may_replace_the_traffic_of_another_number_of_agents(azure_log):
    scenario = load_scenario("serverless", agents=8, steps=5, trace=azure_log)
    assert len(scenario.agents) == 8 and scenario.windows.episodes > 0


def test_a_number_of_agents_that_a_scenario_cannot_have():
    refused("agents = 0: input should be greater than or equal to 1", "serverless", agents=0)
    for name in ("workflow", "paper-spike", "trace"):
        refused(f"{name}.*log, surges, routing or tasks for its 4 agents, so agents = 8", name, agents=8)


def test_the_papers_load_is_what_the_paper_does_not_say():
    assert utilisation_of(load_scenario("paper")) == pytest.approx(0.8 + 0.8 + 0.75 + 25 / 30)
    assert utilisation_of(load_scenario("steady")) == pytest.approx(0.795, abs=1e-3)


def test_a_shorter_step_keeps_the_rates():
    for dt in (0.1, 1.0):
        batch = Batch(load_scenario("steady", dt=dt), 1)
        batch.seed(0)
        batch.reset()
        assert batch.state["mean_rate"][0].tolist() == [20, 10, 11.25, 6.25]


def test_the_scenarios_are_those_of_the_design():
    paper = SCENARIOS["paper"]
    assert [a.throughput_rps for a in paper.agents] == [100, 50, 60, 30]
    assert [a.min_share for a in paper.agents] == [0.10, 0.30, 0.25, 0.35]
    assert [a.priority for a in paper.agents] == [1, 2, 2, 1]
    assert [a.slo_s for a in paper.agents] == [1, 2, 2, 5]
    assert [a.model_mb for a in paper.agents] == [500, 2000, 1500, 3000]
    assert paper.platform == Platform() and paper.platform.usd_per_gpu_hour == 0.72
    assert paper.traffic.rates_rps == (80, 40, 45, 25) and (paper.steps, paper.dt) == (100, 1)
    assert SCENARIOS["paper-overload"].traffic.rates_rps == (240, 120, 135, 75)
    spike = SCENARIOS["paper-spike"]
    assert (spike.steps, spike.dt) == (1000, 0.1)
    assert spike.traffic.surges == (Surge(agent="nlp", factor=10, start_s=40, end_s=50),)
    assert SCENARIOS["paper-dominance"].traffic.rates_rps == pytest.approx((19 / 3, 171, 19 / 3, 19 / 3))
    serverless = SCENARIOS["serverless"]
    assert [a.kappa for a in serverless.agents] == [0.5, 1, 1, 2]
    assert serverless.platform == Platform(
        reallocation_s=0.1, deadband=0.02, container_start_s=2, load_mb_per_s=1000, keep_alive_s=10
    )
    assert serverless.traffic.load == 0.8 and serverless.traffic.mix_concentration == 2
    burst = serverless.traffic.burst
    assert (burst.ratio, burst.on_s, burst.off_s) == (4, 10, 50)


def test_load_scenario_is_serverless_unless_told_otherwise():
    assert load_scenario() == SCENARIOS["serverless"]


def test_objective_weights_replace_only_those_named():
    scenario = load_scenario("paper", objective={"slo": 2.0})
    assert scenario.objective == Objective(slo=2.0)


def test_configuration_objects_are_frozen():
    for thing, key in (
        (SCENARIOS["paper"], "steps"),
        (PAPER_AGENTS[0], "priority"),
        (Platform(), "gpus"),
        (Objective(), "cost"),
        (Traffic(rates_rps=(1.0,)), "law"),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(thing, key, 3)


def test_a_cold_start_is_the_container_and_the_weights():
    platform = Platform(container_start_s=2, load_mb_per_s=1000)
    assert platform.cold_start_s(3000) == 5
    assert Platform().cold_start_s(3000) == 0


def test_an_unknown_scenario_suggests_the_nearest_and_lists_all():
    refused(r"unknown scenario 'serverles'; did you mean 'serverless'\?.*paper-spike.*\.toml", "serverles")
    refused(r"unknown scenario 'zzz'; Give one of paper", "zzz")


def test_a_missing_file_is_named():
    refused(r"nowhere\.toml: no such file; registered scenarios are paper", "nowhere.toml")


def test_text_that_is_not_toml_is_refused_with_the_line(written):
    path = written("steps = = 3")
    refused(r"mine\.toml: not valid TOML: .*line 1", path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("dt = 0.5", "dtt = 0.5", r"unknown key 'dtt'; did you mean 'dt'\?"),
        ("gpus = 2", "gpu = 2", r"unknown key 'platform\.gpu'; did you mean 'gpus'\?"),
        (
            "throughput_rps = 20",
            "througput_rps = 20",
            r"unknown key 'agents\.0\.througput_rps'; did you mean 'throughput_rps'\?",
        ),
        (
            "ratio = 3",
            "ration = 3",
            r"unknown key 'traffic\.burst\.ration'; did you mean 'ratio'\?",
        ),
        (
            "factor = 2",
            "factr = 2",
            r"unknown key 'traffic\.surges\.0\.factr'; did you mean 'factor'\?",
        ),
        ("slo = 3", "slow = 3", r"unknown key 'objective\.slow'; did you mean 'slo'\?"),
        ("throughput_rps = 20\n", "", r"key 'agents\.0\.throughput_rps' is missing; add it"),
        ("steps = 12", "steps = 0", r"steps = 0: .*greater than or equal to 1"),
        ("steps = 12", "steps = 1.5", r"steps = 1\.5: .*integer"),
        ("dt = 0.5", "dt = 0.001", r"dt = 0\.001: .*greater than or equal to 0\.01"),
        ("dt = 0.5", "dt = 11", r"dt = 11: .*less than or equal to 10"),
        ("dt = 0.5", "dt = nan", r"dt = nan: "),
        ("model_mb = 1000", "model_mb = -1", r"agents\.0\.model_mb = -1: .*greater than or equal to 0"),
        ("model_mb = 1000", "model_mb = inf", r"agents\.0\.model_mb = inf: .*finite"),
        ("min_share = 0.25", "min_share = nan", r"agents\.0\.min_share = nan: "),
        ("min_share = 0.25", "min_share = 1.5", r"agents\.0\.min_share = 1\.5: .*less than or equal to 1"),
        ("priority = 2", "priority = 0", r"agents\.0\.priority = 0: "),
        ("kappa = 0.5", "kappa = 0", r"agents\.0\.kappa = 0: .*greater than 0"),
        ("slo_s = 1.5", 'slo_s = "soon"', r"agents\.0\.slo_s = 'soon': .*number"),
        (
            '"writer"',
            '"critic"',
            r"different names, got 'critic' 2 times; rename the others",
        ),
        ('slice = "1/7"', 'slice = "3/1"', r"slice must not exceed what one agent can hold, 1\.5 GPU, got 3"),
        ('slice = "1/7"', 'slice = "a seventh"', r"platform\.slice.*a seventh"),
        ('slice = "1/7"', 'slice = "1/0"', r"platform\.slice.*1/0"),
        ("reallocation_s = 0.1", "reallocation_s = nan", r"platform\.reallocation_s = nan: "),
        ("keep_alive_s = 30", "keep_alive_s = nan", r"platform\.keep_alive_s = nan: "),
        ("keep_alive_s = 30", "load_mb_per_s = nan", r"platform\.load_mb_per_s = nan: "),
        ("slo = 3", "slo = -3", r"objective\.slo = -3: .*greater than or equal to 0"),
        ("slo = 3", "slo = nan", r"objective\.slo = nan: "),
        ("[4, 2]", "[4]", r"traffic\.rates_rps needs one rate for each of the 2 agents.*got 1"),
        ("[4, 2]", "[4, nan]", r"traffic\.rates_rps\.1 = nan: "),
        ("[4, 2]", "[4, -2]", r"traffic\.rates_rps\.1 = -2: "),
        ("[4, 2]", "[0, 0]", r"rates_rps must not all be zero; no request would ever arrive"),
        ("load = 0.5", "load = 11", r"traffic\.load = 11: .*less than or equal to 10"),
        ("load = 0.5", "load = nan", r"traffic\.load = nan: "),
        ('law = "poisson"', 'law = "gaussian"', r"traffic\.law = 'gaussian': .*'constant' or 'poisson'"),
        ("rates_rps = [4, 2]\n", "", r"give either rates_rps or mix_concentration"),
        ("rates_rps = [4, 2]\nload = 0.5", "mix_concentration = 2", r"a drawn mix needs a load"),
        ('agent = "critic"', 'agent = "critc"', r"surges names agent 'critc'; the agents are writer, critic"),
        ("end_s = 2", "end_s = 1", r"end_s must be after start_s = 1, got 1"),
        ("[0.25, 0.0]]", "[2.0, 0.0]]", r"routing has spectral radius 1\.000: tasks would never end; lower"),
        ("[0.25, 0.0]]", "[0.25]]", r"routing must have 2 rows of 2 numbers"),
        ("[0.25, 0.0]]", "[-0.25, 0.0]]", r"routing\.1\.0 = -0\.25: "),
        ("[0.25, 0.0]]", "[nan, 0.0]]", r"routing\.1\.0 = nan: "),
        ("[traffic]", "[trace]\n[traffic]", r"give either traffic, to draw requests, or trace"),
    ],
)
def test_a_wrong_key_or_value_names_its_place_itself_and_the_remedy(written, before, after, message):
    assert before in COMPLETE
    path = written(COMPLETE.replace(before, after, 1))
    with pytest.raises(ScenarioError, match=message) as error:
        load_scenario(path)
    assert str(error.value).startswith(str(path))


def test_all_mistakes_are_told_at_once(written):
    text = COMPLETE.replace("steps = 12", "steps = 0").replace("gpus = 2", "gpus = -2")
    with pytest.raises(ScenarioError) as error:
        load_scenario(written(text))
    first, second = sorted(str(error.value).splitlines())
    assert "platform.gpus = -2" in first and "steps = 0" in second


def test_a_file_without_traffic_is_refused(written):
    refused("give either traffic, to draw requests, or trace, to replay a log", written("steps = 3\n"))


@pytest.mark.parametrize(
    ("load", "limit"),
    [
        (0, "greater than 0"),
        (-1, "greater than 0"),
        (10.5, "less than or equal to 10"),
        (float("nan"), "a finite number"),
        (float("inf"), "a finite number"),
    ],
)
def test_a_load_out_of_range_is_refused(load, limit):
    message = rf"load = {load}: input should be {limit}; 1\.0 is the platform's full capacity"
    refused(message, "paper", load=load)


@pytest.mark.parametrize("dt", [0.0, 0.005, 10.1, float("nan"), -1.0])
def test_a_step_length_out_of_range_is_refused(dt):
    refused(rf"scenario 'paper': dt = {dt}: ", "paper", dt=dt)


def test_a_list_whose_elements_are_all_refused_is_not_called_too_short(written):
    path = written('[[agents]]\nname = "x"\nmodel_mb = -1\nthroughput_rps = 1\n[traffic]\nrates_rps = [1]\n')
    with pytest.raises(ScenarioError) as refusal:
        load_scenario(path)
    (line,) = str(refusal.value).splitlines()
    assert "agents.0.model_mb = -1: " in line
    empty = path.read_text().replace("[[agents]]", "agents = []\n[a]")
    refused("agents = .*at least 1 item", written(empty))


def test_a_misspelt_objective_suggests_the_term():
    refused(
        r"scenario 'paper': unknown key 'objective\.latncy'; did you mean 'latency'\? "
        r"Known keys here: latency, cost, throughput, slo, shortfall",
        "paper",
        objective={"latncy": 1.0},
    )


def test_an_objective_that_is_no_number_is_refused():
    refused(r"objective\.slo = 'high': .*number", "paper", objective={"slo": "high"})


def test_a_split_without_a_log_is_refused():
    refused(r"scenario 'paper' draws its traffic, so split='eval' has no meaning", "paper", split="eval")


def test_an_unknown_split_is_refused(azure_log):
    refused(r"split = 'test': .*'train', 'eval' or 'all'", "trace", trace=azure_log, split="test")


def test_a_trace_scenario_without_a_log_says_how_to_give_one():
    with pytest.raises(ScenarioError, match=r"scenario 'trace' replays a request log: give its path"):
        Batch(load_scenario("trace"), 1)


def test_a_log_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TraceError, match=r"gone\.csv: no such file"):
        Batch(load_scenario("trace", trace=tmp_path / "gone.csv"), 1)


def test_a_log_replaces_the_traffic_of_any_scenario(azure_log):
    scenario = load_scenario("steady", trace=azure_log, load=0.5, steps=10)
    assert scenario.traffic is None and scenario.trace.load == 0.5
    assert Batch(scenario, 1).source.replay.episodes > 1


def test_a_load_for_traffic_that_never_comes_is_refused():
    surges = tuple(Surge(agent=agent.name, factor=0, start_s=0, end_s=1000) for agent in PAPER_AGENTS)
    traffic = Traffic(law="constant", rates_rps=(1, 1, 1, 1), load=0.5, surges=surges)
    with pytest.raises(ValueError, match=r"surges|load"):
        Batch(Scenario(name="silent", traffic=traffic), 1)


def test_what_the_bill_weighs_is_that_of_a_second_of_latency():
    assert load_scenario("serverless").bill_s == pytest.approx(0.2 / 1.0)
    assert load_scenario("llm").bill_s == pytest.approx(1.0 / 0.1)
    # A task of `team` has 1/.45 calls of the coordinator, and two specialists between each two of them.
    calls = 1 / 0.45 + 2 * (1 / 0.45 - 1)
    assert load_scenario("team").bill_s == pytest.approx(1.0 / (0.1 * calls))
    both = load_scenario("team", objective={"latency": 0.3, "task": 0.1, "cost": 2.0})
    assert both.bill_s == pytest.approx(2.0 / (0.3 + 0.1 * calls))
    magentic = load_scenario("magentic")
    assert magentic.bill_s == pytest.approx(1.0 / (0.1 * magentic.visits[:, 0].sum()))
    for weights in ({"cost": 0.0}, {"latency": 0.0}):
        assert load_scenario("serverless", objective=weights).bill_s is None


def test_visits_solve_the_traffic_equations(written):
    scenario = load_scenario(written(COMPLETE))
    external = np.array([3.0, 5.0])
    total = scenario.visits @ external
    assert total == pytest.approx(external + np.array(scenario.routing).T @ total)

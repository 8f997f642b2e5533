"""The tasks of an episode: their laws, their logs, and what is refused."""

import numpy as np
import pytest
from support.call_episodes import scenario_of, server, tasks_of
from support.episodes import started

import gpualloc_env.memory
from gpualloc_env import Burst, Platform, ScenarioError, Surge, Trace, TraceError, Traffic, load_scenario
from gpualloc_env.env import GPUAllocEnv
from gpualloc_env.scenario.task_law import tasks_of_sessions
from gpualloc_env.scenario.tasks import Sessions, Workflow
from gpualloc_env.simulation.calls import BYTES_PER_CALL

TEAM = Workflow(entry="a", end=0.4, specialists=("b", "c", "d"), least=1, most=3, tool_s=0.5)
FOUR = tuple(server(name, prefill_s_per_token=0.01) for name in "abcd")


def all_tasks(batch):
    return [batch.tasks(b) for b in range(batch.num_envs)]


def drawn(scenario, envs=50, seed=0):
    return all_tasks(started(scenario, envs, seed))


def assert_near(values, expected, widths=4):
    """The mean of independent values is within so many standard errors."""
    values = np.asarray(values, dtype=float)
    assert abs(values.mean() - expected) < widths * values.std(ddof=1) / np.sqrt(len(values))


def test_tokens_are_lognormal_with_their_means_and_variations_and_whole():
    agent = server(prompt_tokens=800, output_tokens=120, prompt_cv=0.8, output_cv=0.7)
    scenario = scenario_of(agent, steps=400, traffic=Traffic(rates_rps=(5.0,)))
    tasks = drawn(scenario)
    prompt = np.concatenate([each.prompt for each in tasks])
    output = np.concatenate([each.output for each in tasks])
    # Rounding up adds half a token.
    assert_near(prompt, 800.5)
    assert_near(output, 120.5)
    assert prompt.std() / prompt.mean() == pytest.approx(0.8, rel=0.03)
    assert output.std() / output.mean() == pytest.approx(0.7, rel=0.03)
    assert np.log(prompt).std() == pytest.approx(np.sqrt(np.log(1 + 0.64)), rel=0.02)
    assert abs(np.corrcoef(np.log(prompt), np.log(output))[0, 1]) < 0.02
    assert output.min() >= 1


def test_without_variation_all_calls_have_the_mean():
    scenario = scenario_of(server(prompt_tokens=800, output_tokens=120), traffic=Traffic(rates_rps=(5.0,)))
    (tasks,) = drawn(scenario, 1)
    assert (tasks.prompt == 800).all() and (tasks.output == 120).all()


def test_a_drawn_call_is_cut_to_the_room_there_is():
    agent = server(prompt_tokens=50, output_tokens=20, prompt_cv=3, output_cv=3, kv_tokens=100)
    tasks = drawn(scenario_of(agent, steps=400, traffic=Traffic(rates_rps=(5.0,))), 4)
    total = np.concatenate([each.prompt + each.output for each in tasks])
    assert total.max() == 100 and (total < 100).mean() > 0.5
    assert min(each.prompt.min() for each in tasks) == 0 and min(each.output.min() for each in tasks) == 1


def test_tasks_come_as_a_poisson_process():
    scenario = scenario_of(server(), steps=200, traffic=Traffic(rates_rps=(3.0,)))
    tasks = drawn(scenario, 100)
    counts = [len(each.time) for each in tasks]
    assert_near(counts, 600)
    assert np.var(counts) / np.mean(counts) == pytest.approx(1, abs=0.4)
    gaps = np.concatenate([np.diff(each.time) for each in tasks])
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.02)
    for each in tasks:
        assert (np.diff(each.time) >= 0).all() and each.time[0] > 0 and each.time[-1] <= 200


def test_bursts_keep_the_mean_rate_and_cluster_the_tasks():
    law = Traffic(rates_rps=(3.0,), burst=Burst(ratio=4, on_s=10, off_s=50))
    tasks = drawn(scenario_of(server(), steps=600, traffic=law), 100)
    assert_near([len(each.time) for each in tasks], 1800)
    counts = np.array([np.histogram(each.time, 60, (0, 600))[0] for each in tasks])
    # λ (1 + the variance of the mean rate over 10 s, in counts): far more than Poisson's 30.
    assert counts.var() > 3 * counts.mean()


def test_a_constant_law_is_evenly_spaced_and_surges_multiply_the_rate():
    surge = Surge(agent="server", factor=3, start_s=2, end_s=4)
    law = Traffic(law="constant", rates_rps=(2.0,), surges=(surge,))
    (tasks,) = drawn(scenario_of(server(), steps=6, traffic=law), 1)
    expected = [0.5, 1, 1.5, 2, *(2 + k / 6 for k in range(1, 13)), 4.5, 5, 5.5, 6]
    np.testing.assert_allclose(tasks.time, expected)


def test_a_longer_episode_begins_as_a_shorter_one_does_and_dt_changes_nothing():
    base = load_scenario("team", steps=100)
    (short,) = drawn(base, 1, 5)
    (long,) = drawn(load_scenario("team", steps=300), 1, 5)
    (fine,) = drawn(load_scenario("team", steps=400, dt=0.25), 1, 5)
    tasks, calls = len(short.time), len(short.agent)
    assert len(long.time) > 2 * tasks
    for name, values in short._asdict().items():
        length = {"time": tasks, "first": tasks + 1}.get(name, calls)
        assert (values == getattr(long, name)[:length]).all()
        assert (values == getattr(fine, name)).all()


def test_the_same_tasks_come_faster_under_a_higher_load():
    (light,), (heavy,) = (drawn(load_scenario("llm", load=load), 1, 3) for load in (0.2, 0.8))
    for i in range(4):
        tokens = [each.prompt[each.agent == i] for each in (light, heavy)]
        count = len(tokens[0])
        assert 0 < count < len(tokens[1]) and (tokens[0] == tokens[1][:count]).all()


def test_a_workflow_visits_its_agents_as_often_as_it_says():
    scenario = scenario_of(*FOUR, steps=300, traffic=Traffic(rates_rps=(2.0, 0, 0, 0)), tasks=TEAM)
    tasks = drawn(scenario)
    leads = [(each.agent == 0).sum() / len(each.time) for each in tasks]
    assert_near(leads, 1 / 0.4)
    for i in (1, 2, 3):
        assert_near([(each.agent == i).sum() / len(each.time) for each in tasks], 1.5 * 2 / 3)
    assert scenario.visits[:, 0] == pytest.approx([2.5, 1, 1, 1])
    batch = started(scenario, 1)
    assert batch.state["mean_rate"][0] == pytest.approx([5, 2, 2, 2])
    after_s = np.concatenate([each.after_s[each.agent > 0] for each in tasks])
    assert_near(after_s, 0.5)
    for each in tasks[:3]:
        assert (each.after_s[each.agent == 0] == 0).all()
        for m in range(len(each.time)):
            own = slice(each.first[m], each.first[m + 1])
            stage, agent = each.stage[own], each.agent[own]
            assert ((stage % 2 == 0) == (agent == 0)).all() and (np.diff(stage) >= 0).all()
            assert stage[0] == 0 and stage[-1] % 2 == 0 and set(np.diff(stage)) <= {0, 1}
            for k in range(stage[-1] + 1):
                parallel = agent[stage == k]
                assert 1 <= len(parallel) <= 3 and len(set(parallel)) == len(parallel)


def test_the_number_of_specialists_and_the_specialists_are_uniform():
    scenario = scenario_of(*FOUR, steps=1000, traffic=Traffic(rates_rps=(2.0, 0, 0, 0)), tasks=TEAM)
    together = [
        frozenset(
            each.agent[each.first[m] : each.first[m + 1]][each.stage[each.first[m] : each.first[m + 1]] == 1]
        )
        for each in drawn(scenario, 5)
        for m in range(len(each.time))
    ]
    together = [calls for calls in together if calls]
    share = {calls: together.count(calls) / len(together) for calls in set(together)}
    assert len(share) == 7
    for calls, fraction in share.items():
        assert fraction == pytest.approx(1 / 9 if len(calls) < 3 else 1 / 3, abs=0.02)


def test_load_counts_all_calls_of_a_task():
    for name in ("llm", "team", "magentic"):
        scenario = load_scenario(name, load=0.5)
        batch = started(scenario, 3)
        throughput = np.array([agent.throughput_rps for agent in scenario.agents])
        assert (batch.state["mean_rate"] / throughput).sum(axis=1) / 2 == pytest.approx([0.5] * 3)


def test_the_nominal_throughput_is_that_of_a_full_batch():
    agent = server(
        iteration_s=0.01,
        iteration_s_per_call=0.001,
        prefill_s_per_token=1e-4,
        prompt_tokens=500,
        output_tokens=100,
        max_batch=10,
    )
    assert agent.throughput_rps == pytest.approx(1 / (0.05 + 100 * 0.02 / 10))


def test_an_environment_shows_its_tasks_and_a_fluid_has_none():
    env = GPUAllocEnv("team", steps=50)
    env.reset(seed=3)
    (expected,) = drawn(load_scenario("team", steps=50), 1, 3)
    assert all((ours == theirs).all() for ours, theirs in zip(env.tasks, expected, strict=True))
    with pytest.raises(ValueError, match="serves a fluid"):
        _ = GPUAllocEnv("serverless").tasks


@pytest.mark.parametrize("shipped", [True, False])
def test_sessions_are_drawn_from_the_log(tmp_path, shipped):
    agents = (server("x", prefill_s_per_token=0.001, kv_tokens=50), server("y", iteration_s=0.1))
    log = tmp_path / "sessions.csv"
    log.write_text(
        "session,call,time_s,agent,prompt_tokens,output_tokens\n"
        "s,0,10,x,20,1\ns,1,12,y,0,11\nt,0,0,y,5,6\ns,2,14,x,10,1\nt,1,0.1,x,10,1\n"
    )
    scenario = scenario_of(*agents, steps=400, traffic=None, sessions=Sessions(path=log, load=0.5))
    if shipped:
        scenario = load_scenario("magentic")
    library = tasks_of_sessions(scenario)
    tasks = drawn(scenario, 10)
    if not shipped:
        # 2 s less 0.02 s of prefill, 2 s less 1 s of ten tokens and no prefill, 0.1 s less 5.5 s.
        assert library.after_s == pytest.approx([0, 1.98, 1.0, 0, 0])
        assert library.stage.tolist() == [0, 1, 2, 0, 1] and library.first.tolist() == [0, 3, 5]
    known = {
        tuple(
            zip(
                *(column[library.first[m] : library.first[m + 1]].tolist() for column in library[2:]),
                strict=True,
            )
        )
        for m in range(len(library.first) - 1)
    }
    drawn_sessions = [
        tuple(zip(*(column[each.first[m] : each.first[m + 1]].tolist() for column in each[2:]), strict=True))
        for each in tasks
        for m in range(len(each.time))
    ]
    assert set(drawn_sessions) == known
    expected = scenario.visits[:, 0]
    counted = np.bincount(np.concatenate([each.agent for each in tasks]), minlength=len(expected))
    assert counted / len(drawn_sessions) == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("stretched", [False, True])
def test_a_log_with_tokens_is_played_call_by_call_at_its_own_stamps(tmp_path, stretched):
    log = tmp_path / "burst.csv"
    rng = np.random.default_rng(0)
    times, prompts = np.sort(rng.uniform(0, 100, 400)), rng.integers(0, 900, 400)
    outputs = rng.integers(0, 300, 400)
    lines = [f"{t:.6f},{p},{o}" for t, p, o in zip(times, prompts, outputs, strict=True)]
    log.write_text("Timestamp,Request tokens,Response tokens\n" + "\n".join(lines))
    changes = {"load": 0.5} if stretched else {}
    scenario = load_scenario("llm", trace=log, steps=20, split="all", **changes)
    windows = scenario.windows
    assert "without output count as ones of 1 token" in windows.accounting
    batch = started(scenario, windows.episodes)
    tasks = all_tasks(batch)
    span = times[-1] - times[0]
    scale = 1.0
    if stretched:
        visits = np.bincount(windows.played.agent, minlength=4)
        assert scenario.utilisation(visits / (windows.episodes * 20)) == pytest.approx(0.5, rel=0.2)
        scale = scenario.utilisation(np.array([400, 134, 133, 133.0])) / 0.5 / (span * 400 / 399)
    at = (times - times[0]) * scale
    for k, each in enumerate(tasks):
        own = (at >= 20 * k) & (at < 20 * (k + 1))
        np.testing.assert_allclose(each.time, at[own] - 20 * k, atol=1e-5)
        assert (each.prompt.reshape(-1, 2) == prompts[own, None]).all()
        assert (each.output.reshape(-1, 2) == np.maximum(1, outputs[own, None])).all()
        assert (each.agent.reshape(-1, 2)[:, 0] == 0).all() and (each.stage == 0).all()
        counts = np.bincount(each.agent, minlength=4)
        assert batch.state["mean_rate"][k] == pytest.approx(counts / 20)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", r"line 1: no column 'session'"),
        ("session,call,time_s,agent,prompt_tokens\ns,0,0,x,1\n", r"line 1: no column 'output_tokens'"),
        (
            "session,call,time_s,agent,prompt_tokens,output_tokens,output_tokens\ns,0,0,x,1,2,9\n",
            r"line 1: column 'output_tokens' stands there twice",
        ),
        ("{}s,0,0,x,1\n", r"line 2: 5 fields where the header has 6"),
        ("{}s,0,0,x,,1\n", r"line 2, field prompt_tokens: '' should be a number of tokens"),
        ("{}s,0,0,x,1,1\ns,1,1,x,-3,1\n", r"line 3, field prompt_tokens: '-3' should be"),
        ("{}s,0,0,x,1,-1\n", r"line 2, field output_tokens: '-1' should be a number of tokens, 1 to"),
        ("{}s,0,0,x,1,many\n", r"line 2, field output_tokens: 'many' should be"),
        ("{}s,0,4,x,1,1\nt,0,0,x,1,1\ns,1,3,x,1,1\n", r"line 4, field time_s: '3.0' should be .* no earlier"),
        ("{}s,1,0,x,1,1\ns,1,3,x,1,1\n", r"line 3, field call: '1' should be"),
        ("{}s,-1,0,x,1,1\n", r"field call: '-1' should be the number of the call in its session, 0 to 1,0"),
        (
            "{}s,0,0,x,1,1\ns,1,1,z,1,1\n",
            r"line 3, field agent: 'z' is no agent of the scenario; name one of x",
        ),
        (
            "{}s,0,0,x,1,1\ns,1,1,x,90,30\n",
            r"line 3: a call of 120 tokens in all is larger than kv_tokens = 100 .*'x'",
        ),
        ("{}", r"no calls"),
    ],
)
def test_a_bad_log_of_sessions_names_file_line_and_field(tmp_path, lines, message):
    log = tmp_path / "sessions.csv"
    header = "session,call,time_s,agent,prompt_tokens,output_tokens\n"
    log.write_text(lines.replace("{}", header) if lines else "a,b\n1,2\n")
    scenario = scenario_of(server("x", kv_tokens=100), traffic=None, sessions=Sessions(path=log))
    with pytest.raises(TraceError, match=rf"sessions\.csv,? ?.*{message}"):
        scenario.source()


def test_a_request_larger_than_its_agent_has_room_for_is_refused_by_name(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("Timestamp,Request tokens,Response tokens\n0,5,5\n1,200000,1\n2,5,5\n3,300000,1\n")
    scenario = load_scenario("llm", trace=log, steps=1)
    with pytest.raises(
        TraceError, match=r"log\.csv, line 5: a call of 300,001 tokens .* agent 'coordinator'"
    ):
        scenario.source()
    log.write_text("time_s,agent\n0,nlp\n1,nlp\n")
    with pytest.raises(TraceError, match="has no tokens"):
        load_scenario("llm", trace=log, steps=1).source()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agents": (server("a"), server("b"))}, "tasks names agent 'c'"),
        ({"traffic": Traffic(rates_rps=(1, 1, 0, 0))}, "tasks come to agent 'a' alone"),
        ({"traffic": None, "trace": Trace()}, "leave out either tasks or trace"),
        ({"traffic": None}, "give either traffic"),
        ({"service": "fluid"}, "add service = 'requests'"),
        ({"routing": ((0.0,) * 4,) * 4}, "give a table of tasks instead"),
    ],
)
def test_tables_that_do_not_fit_each_other_are_refused(changes, message):
    table = {"traffic": Traffic(rates_rps=(1, 0, 0, 0)), "tasks": TEAM, "service": "requests", **changes}
    with pytest.raises(ValueError, match=message):
        type(load_scenario("team"))(name="x", agents=table.pop("agents", FOUR), **table)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_tokens": None}, "has no output_tokens"),
        ({"prefill_s_per_token": 0.0}, "take no time at all"),
        ({"throughput_rps": 3.0}, "leave throughput_rps out"),
        ({"kv_tokens": 1}, "is larger than kv_tokens = 1"),
        ({"model": "gpt-5", "gpu": "h100"}, "not in the catalogue, which has phi-2 on"),
        ({"model": "llama-2-70b", "gpu": "h100"}, "does not fit on gpu = 'h100'"),
        ({"max_batch": 0}, "greater than or equal to 1"),
    ],
)
def test_an_agent_that_cannot_serve_calls_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        server(**changes)


def test_an_agent_of_a_fluid_serves_no_calls():
    agents = load_scenario("serverless").agents
    with pytest.raises(ValueError, match="'coordinator' has no iteration_s"):
        scenario_of(*agents)


def test_episodes_that_no_memory_holds_name_what_to_lower(monkeypatch):
    scenario = scenario_of(server(), steps=1000, traffic=Traffic(rates_rps=(100.0,)))
    monkeypatch.setattr(gpualloc_env.memory, "physical_memory", lambda: 50_000 * BYTES_PER_CALL)
    with pytest.raises(ScenarioError, match=r"some 100,000 calls.*lower num_envs, steps or the load"):
        started(scenario, 1)
    small = scenario.model_copy(update={"steps": 100})
    with pytest.raises(ScenarioError, match=r"num_envs = 100 of them need .* GB"):
        started(small, 100)
    assert started(small, 1).service.run["calls"][0] > 9000


def test_agents_that_vary_are_faster_or_slower_in_all_their_times():
    base = scenario_of(
        *FOUR, traffic=Traffic(rates_rps=(1.0,) * 4), agent_spread=0.3, platform=Platform(gpus=4)
    )
    batch = started(base, 20)
    faster = batch.agents["throughput"] / batch.agents["throughput"].mean(axis=0)
    assert faster.std() > 0.05
    seconds = batch.agents["prefill_per_token"] * batch.agents["throughput"]
    assert seconds == pytest.approx(np.full((20, 4), seconds[0, 0]))


def test_hand_made_tasks_are_shown_as_they_were_made():
    from support.call_episodes import replayed_tasks

    made = tasks_of((0.5, [(0, 0, 3, 4, 0.25), (0, 1, 5, 6, 0)]), (0.75, [(0, 0, 7, 8, 0)]))
    shown = replayed_tasks(scenario_of(server()), made).tasks(0)
    assert all((ours == theirs).all() for ours, theirs in zip(shown, made, strict=True))

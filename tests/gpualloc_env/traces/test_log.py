import re

import numpy as np
import pytest
from support.log_samples import AGENTS, HEADERS, NAMED, log_lines, played, write_log
from support.places import REAL_LOGS

from gpualloc_env import Batch, Trace, TraceError, load_scenario
from gpualloc_env.traces.formats import FORMATS, read_log
from gpualloc_env.traces.log import ASSIGNMENTS

every_format = pytest.mark.parametrize("form", FORMATS)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A log of 3000 requests in each format, by the format's name."""
    folder = tmp_path_factory.mktemp("logs")
    return {form: write_log(folder / f"{form}.log", log_lines(form, 3000)) for form in FORMATS}


@pytest.fixture
def written(tmp_path):
    """Write lines of a format and return the path."""
    return lambda *lines, form="Azure": write_log(tmp_path / "log.csv", [HEADERS[form], *lines])


def scenario_of(path, split="all", assignment=None, **changes):
    scenario = load_scenario("trace", trace=path, split=split, **changes)
    if assignment is None:
        return scenario
    return scenario.model_copy(update={"trace": scenario.trace.model_copy(update={"assignment": assignment})})


def counted(scenario):
    """Windows and requests in training, in evaluation, and requests in the remainder, as accounted for."""
    sentence = r"(\d+) in (\d+) training.* (\d+) in (\d+) evaluation.* (\d+) in the remainder"
    parts = re.search(sentence, scenario.windows.accounting)
    train, train_windows, held_out, eval_windows, remainder = map(int, parts.groups())
    return (train_windows, train), (eval_windows, held_out), remainder


def dense(scenario, visits):
    """Sums of work in a table of all windows, (W, T + 1, N), of requests with these visits, (n, visits)."""
    log, steps = read_log(scenario.trace.path), scenario.steps
    work = np.zeros(len(AGENTS))
    for visit in visits.T:
        work += np.bincount(visit, weights=log.work, minlength=len(work))
    span = scenario.utilisation(work) / scenario.trace.load
    windows = int(span / (steps * scenario.dt))
    position = (log.time_s * (span / log.span_s) / scenario.dt).astype(int)
    rows = np.zeros((int(position.max()) + 1 + steps, len(AGENTS)))
    for visit in visits.T:
        np.add.at(rows, (position, visit), log.work)
    rows[windows * steps :] = 0
    return np.stack([rows[w * steps : (w + 1) * steps + 1] for w in range(windows)])


def busy_rows(scenario):
    rows = played(scenario)[:, 0]
    return rows[rows.any(axis=1)].tolist()


THREE = [f"2023-11-16 18:17:{second:02d},{prompt},0" for second, prompt in enumerate((900, 100, 500))]


def test_each_request_visits_the_coordinator_and_the_specialist_of_its_prompt_length(written):
    # Work 1.8, 0.2 and 1 at the coordinator; the shortest to NLP, the longest to reasoning.
    assert busy_rows(scenario_of(written(*THREE), steps=1, dt=0.01)) == [
        pytest.approx([1.8, 0, 0, 1.8]),
        pytest.approx([0.2, 0.2, 0, 0]),
        pytest.approx([1, 0, 1, 0]),
    ]


def test_by_length_each_request_goes_to_one_of_all_agents(written):
    lines = [*THREE, "2023-11-16 18:17:03,2500,0"]
    assert busy_rows(scenario_of(written(*lines), "all", "by-length", steps=1, dt=0.01)) == [
        pytest.approx([0, 0, 0.9, 0]),
        pytest.approx([0.1, 0, 0, 0]),
        pytest.approx([0, 0.5, 0, 0]),
        pytest.approx([0, 0, 0, 2.5]),
    ]


def test_the_first_agent_may_get_every_request(written):
    assert busy_rows(scenario_of(written(*THREE), "all", "first-agent", steps=1, dt=0.01)) == [
        pytest.approx([work, 0, 0, 0]) for work in (1.8, 0.2, 1)
    ]


@pytest.mark.parametrize("assignment", [*ASSIGNMENTS, None])
def test_a_log_that_names_agents_overrules_the_assignment(written, assignment):
    path = written("7,vision,0.5", "8,nlp,1", "9,vision,2", form="plain")
    assert busy_rows(scenario_of(path, "all", assignment, steps=1, dt=0.01)) == [
        [0, 0, 0.5, 0],
        [0, 1, 0, 0],
        [0, 0, 2, 0],
    ]


def test_an_agent_that_there_is_not_is_named_by_line(written):
    path = written("0,nlp,1", "1,Vision,1", "2,sound,1", form="plain")
    message = (
        r"log\.csv, line 3, field agent: 'Vision' is no agent .*; name one of coordinator, nlp, vision, rea"
    )
    with pytest.raises(TraceError, match=message):
        _ = scenario_of(path).windows


def test_the_load_counts_the_visits_that_routing_adds(written):
    scenario = scenario_of(written(*THREE), "all", "first-agent", steps=1, dt=0.01, load=0.001)
    routing = ((0, 1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))
    routed = scenario.model_copy(update={"routing": routing})
    rates = [agent.throughput_rps for agent in scenario.agents]
    ratio = routed.windows.episodes / scenario.windows.episodes
    assert ratio == pytest.approx((1 / rates[0] + 1 / rates[1]) * rates[0], rel=0.001)


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_one_agent_alone_gets_every_request(azure_log, assignment):
    scenario = scenario_of(azure_log, "all", assignment, steps=5)
    alone = scenario.model_copy(update={"agents": scenario.agents[:1]})
    (_, train), (_, held_out), _ = counted(alone)
    assert played(alone)[:, :-1].sum() == pytest.approx(read_log(azure_log).work[: train + held_out].sum())


@every_format
@pytest.mark.parametrize(("steps", "dt"), [(5, 1.0), (7, 0.3)])
def test_every_request_is_in_one_window_or_in_the_remainder(logs, form, steps, dt):
    log = read_log(logs[form])
    scenarios = {
        split: scenario_of(logs[form], split, steps=steps, dt=dt) for split in ("train", "eval", "all")
    }
    (train_windows, train), (eval_windows, held_out), remainder = counted(scenarios["all"])
    assert len({scenario.windows.accounting for scenario in scenarios.values()}) == 1
    assert train + held_out + remainder == len(log.time_s) == 3000
    episodes = {split: scenario.windows.episodes for split, scenario in scenarios.items()}
    assert episodes == {"train": train_windows, "eval": eval_windows, "all": train_windows + eval_windows}
    assert eval_windows == np.ceil(0.3 * (train_windows + eval_windows))
    # In time order, the first requests are trained on: their work is what the windows hold.
    work = np.cumsum(log.work)
    visits = 1 if form in NAMED else 2
    total = {split: played(scenario)[:, :-1].sum() / visits for split, scenario in scenarios.items()}
    assert total["train"] == pytest.approx(work[train - 1])
    assert total["eval"] == pytest.approx(work[train + held_out - 1] - work[train - 1])
    assert total["all"] == pytest.approx(work[train + held_out - 1])


@every_format
@pytest.mark.parametrize("dt", [1.0, 0.1])
def test_a_batch_plays_the_sums_of_the_requests_bit_for_bit(logs, form, dt):
    scenario = scenario_of(logs[form], steps=6, dt=dt)
    log = read_log(logs[form])
    if form in NAMED:
        visits = np.array([AGENTS.index(name) for name in log.agent_names])[log.agent][:, np.newaxis]
    else:
        rank = np.argsort(np.argsort(log.prompt_tokens, kind="stable"), kind="stable")
        visits = np.column_stack([np.zeros_like(rank), 1 + rank * 3 // len(rank)])
    assert np.array_equal(played(scenario), dense(scenario, visits))


@every_format
def test_training_windows_come_before_evaluation_windows_and_share_nothing(logs, form):
    everything, train, held_out = (
        played(scenario_of(logs[form], s, steps=5)) for s in ("all", "train", "eval")
    )
    assert (np.concatenate([train[:, :-1], held_out[:, :-1]]) == everything[:, :-1]).all()
    # The last row of a window only feeds its final observation: the next window's first row,
    # but nothing of evaluation enters training, and nothing of the remainder evaluation.
    for split in (train, held_out, everything):
        assert (split[:-1, -1] == split[1:, 0]).all()
        assert (split[-1, -1] == 0).all()


def test_the_room_of_the_windows_does_not_grow_as_the_steps_shrink(azure_log):
    coarse, fine = (scenario_of(azure_log, dt=dt, steps=1).windows for dt in (1, 0.01))
    assert fine.episodes == pytest.approx(100 * coarse.episodes, rel=0.02)
    assert len(fine.played.step) <= 2 * 3000
    # A load this low stretches the log to hundred thousand years.
    assert scenario_of(azure_log, dt=0.01, steps=1, load=1e-10).windows.episodes > 1e14


def test_a_request_at_the_start_of_a_step_arrives_in_that_step(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("time_s,agent\n" + "".join(f"{k / 10:.1f},nlp\n" for k in range(100)))
    # One in each tenth of a second at just the load that leaves the log's times as they are.
    windows = scenario_of(log, dt=0.1, steps=20, load=10 / 50).windows
    assert windows.episodes == 5 and windows.played.step.tolist() == list(range(100))


def test_more_steps_than_can_be_counted_are_refused(azure_log):
    with pytest.raises(TraceError, match=r"more steps of 0\.01 s than can be counted; ask for a higher load"):
        _ = scenario_of(azure_log, dt=0.01, load=1e-20).windows


@pytest.mark.parametrize("load", [0.3, 0.8, 2.0])
def test_the_whole_log_has_the_load_asked_for(azure_log, load):
    scenario = scenario_of(azure_log, load=load, steps=1, dt=1)
    log = read_log(azure_log)
    base = np.array([agent.throughput_rps for agent in scenario.agents])
    span = float(re.search(r"stretched to ([\d.]+) s", scenario.windows.accounting).group(1))
    arrivals = played(scenario)[:, 0]
    # The windows leave a remainder of less than one step; its work is what the log has beyond them.
    covered = arrivals[:, 0].sum() / log.work.sum()
    busy = (arrivals / base).sum() / covered
    assert busy / span == pytest.approx(load, rel=0.02)


def test_a_higher_load_shortens_time_and_drops_nothing(azure_log):
    slow, fast = (played(scenario_of(azure_log, load=load, steps=1))[:, 0, 0] for load in (0.4, 0.8))
    assert len(slow) == pytest.approx(2 * len(fast), abs=2)
    assert slow.sum() == pytest.approx(fast.sum(), rel=0.05)


def test_environment_k_starts_at_window_seed_plus_k_and_goes_on_from_there(azure_log):
    scenario = scenario_of(azure_log, "train", steps=6)
    windows = played(scenario)
    batch = Batch(scenario, 3)
    batch.seed(len(windows) - 1)
    for episode in range(3):
        batch.reset()
        for k in range(3):
            expected = windows[(len(windows) - 1 + k + episode) % len(windows)]
            assert (batch.arrivals[:, k] == expected).all()


def test_an_episode_longer_than_the_log_is_refused_with_the_remedy(azure_log):
    message = r"azure\.csv: at load 0\.8 the log lasts .* 0 windows of 1000 s, none of them .*fewer steps"
    with pytest.raises(TraceError, match=message):
        _ = scenario_of(azure_log, "train", steps=1000).windows


def test_a_log_of_one_window_can_be_evaluated_on_but_not_trained_on(azure_log):
    assert scenario_of(azure_log, "eval", steps=100).windows.episodes == 1
    with pytest.raises(TraceError, match=r"none of them for split 'train'; ask for fewer steps"):
        _ = scenario_of(azure_log, "train", steps=100).windows


@pytest.mark.parametrize(
    ("scenario", "split", "load"),
    [
        *(("trace", split, 0.8) for split in ("all", "train", "eval")),
        ("llm", "all", None),
        ("llm", "train", None),
    ],
)
def test_a_log_shorter_than_its_windows_names_the_most_steps_and_load_that_play(
    written, scenario, split, load
):
    path = written(*[f"{k},100,100" for k in range(600)], form="plain with tokens")

    def episodes(steps, load):
        changes = {} if load is None else {"load": load}
        return load_scenario(scenario, trace=path, split=split, steps=steps, **changes).windows.episodes

    with pytest.raises(TraceError, match=r"fewer steps: --steps \d+ at most") as refused:
        episodes(1000, load)
    most = dict(re.findall(r"--(steps|load) (\S+) at most", str(refused.value)))
    assert episodes(int(most["steps"]), load) > 0
    with pytest.raises(TraceError):
        episodes(int(most["steps"]) + 1, load)
    if load is None:  # a request a second at its own times
        assert most == {"steps": "300" if split == "train" else "600"}
        return
    assert episodes(1000, float(most["load"])) > 0
    with pytest.raises(TraceError):
        episodes(1000, 1.01 * float(most["load"]))


def test_a_log_too_short_for_one_step_is_told_so(written):
    path = written("0,100,100", "0.1,100,100", form="plain with tokens")
    with pytest.raises(TraceError, match=r"none of them for split 'all'; give a longer log, .* at least 1 s"):
        _ = load_scenario("llm", trace=path, split="all").windows


def test_trace_settings_are_the_documented_ones():
    assert Trace().load == 0.8 and Trace().eval_fraction == 0.3 and Trace().split == "train"
    assert Trace().assignment == "coordinator-and-specialist"


@every_format
def test_every_format_plays(logs, form):
    reward, arrived = play(logs[form])
    assert np.isfinite(reward).all() and arrived.any()


@pytest.mark.skipif(not REAL_LOGS.is_dir(), reason="the real logs are not here")
@pytest.mark.parametrize("name", ["AzureLLMInferenceTrace_code.csv", "mooncake_conversation.jsonl"])
def test_the_real_logs_play(name):
    reward, arrived = play(REAL_LOGS / name)
    assert np.isfinite(reward).all() and arrived.any()


def play(path):
    """Rewards, (B,), and all that came in the episode, of equal shares on a log."""
    scenario = scenario_of(path, "train")
    batch = Batch(scenario, 2)
    batch.seed(0)
    batch.reset()
    for _ in range(scenario.steps):
        batch.step(np.full((2, 4), 0.25))
    return batch.totals["reward"], batch.inflows[: scenario.steps]

"""Plans by hand on small logs: what is pooled, who is chosen, what is written, and how a browser shows it."""

import json
import shutil

import numpy as np
import pytest
from support.browser import CHROMIUM, DRIVER, browser
from support.log_samples import log_lines, played, write_log
from support.places import PRETRAINED

import training.cluster
from gpualloc_env import Batch
from gpualloc_env.cluster_batch import ClusterBatch
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.overrides import Overrides
from gpualloc_env.traces.formats import read_log
from training.artifacts.policies import load_policy
from training.cli import run as run_command
from training.evaluation.evaluate import evaluate
from training.plan import PlanConfig, main
from training.planning.caveats import caveats, duration, of_memory
from training.planning.page import signed
from training.planning.subject import subject
from training.planning.sweep import Trial, choose, fewest, knee, untried
from training.reporting.measures import COST

LEARNED = PRETRAINED / "ppo-residual-serverless" / "seed-0.npz"
FEW = ("--policies", "static", "autoscaler")


def run(*arguments):
    run_command(main, PlanConfig, [str(argument) for argument in arguments])


def trial(policy, gpus, within, bill=1.0, requests=(100, 100)):
    """An allocator with so many of the requests of each window in time, at a bill in $/h."""
    windows = len(requests)
    metrics = {
        "slo_attainment": np.array(within, dtype=float),
        "arrived": np.array(requests, dtype=float),
        "cost_usd": np.full(windows, bill, dtype=float),
        "unfinished": np.zeros(windows),
    }
    return Trial(policy, policy, "online", gpus, metrics, hours=1.0)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Ten minutes of a request a second, named agents."""
    return write_log(tmp_path_factory.mktemp("log") / "plain.csv", log_lines("plain", 600))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """The same with tokens, and one call too large for any agent's memory."""
    lines = log_lines("plain with tokens", 600)
    time = lines[300].split(",")[0]
    lines[300] = f"{time},400000,10"
    return write_log(tmp_path_factory.mktemp("log") / "tokens.csv", lines)


@pytest.fixture(scope="module")
def plan(tokens, tmp_path_factory):
    """A plan of the log with tokens; the learned allocator is the only one that plays."""
    out = tmp_path_factory.mktemp("plan") / "out"
    run(tokens, "--policies", LEARNED, "--slo", 20, "--sweep", 1, 2, 3, "--out", out)
    return out


def test_attainment_is_that_of_all_requests():
    # 0 of 1 and 3 of 3: three of four, not half.
    each = trial("static", 1, within=(0.0, 1.0, np.nan), requests=(1, 3, 0))
    assert each.by_request("slo_attainment").mean() == pytest.approx(0.75)
    assert each.attainment.low < 0.75 < each.attainment.high <= 1


def test_no_interval_reaches_beyond_what_can_be():
    each = trial("static", 1, within=(0.0, 1.0), bill=np.array([0.1, 2.0]))
    rival = trial("lru", 1, within=(1.0, 0.0))
    assert each.estimate(COST).low == 0 < each.estimate(COST).high
    apart = choose([each, rival], 0.9).rival.attainment
    assert (apart.low, apart.high) == (-1, 1) and each.attainment[1:] == (0, 1)


def test_one_window_has_no_interval():
    alone = trial("static", 1, within=(0.9,), requests=(10,)).attainment
    assert alone.mean == 0.9 and np.isnan([alone.low, alone.high]).all()


def test_the_fewest_gpus_come_first_and_the_bill_second():
    dear, cheap = trial("dear", 2, (0.96, 0.97), bill=2), trial("cheap", 2, (0.96, 0.96), bill=1)
    more = trial("cheap", 3, (1.0, 1.0), bill=0.9)
    late = trial("late", 2, (0.9, 0.9), bill=0.1)
    choice = choose([late, dear, more, cheap], 0.95)
    assert choice.trial is cheap and choice.meets and choice.sure
    assert choice.rival.trial is dear
    assert choice.rival.bill.mean == pytest.approx(-1) and choice.rival.attainment.mean == pytest.approx(
        -0.005
    )
    assert choice.bargain is None
    assert fewest([more, cheap], 0.95) is cheap and fewest([late], 0.95) is None


def test_without_enough_the_nearest_is_chosen_and_said_not_to_meet_it():
    choice = choose([trial("a", 1, (0.5, 0.5)), trial("b", 2, (0.8, 0.7))], 0.95)
    assert choice.trial.policy == "b" and not choice.meets and choice.rival is None


def test_one_that_misses_by_chance_at_a_lower_bill_is_named():
    taken, cheap = trial("taken", 2, (0.96, 0.96), bill=1), trial("cheap", 2, (0.91, 0.98), bill=0.5)
    assert choose([taken, cheap], 0.95).bargain is cheap
    assert choose([taken, trial("poor", 2, (0.91, 0.92), bill=0.5)], 0.95).bargain is None


def test_the_knee_is_the_point_farthest_below_the_line():
    # Below the line from (1, 1) to (5, 0): 0.65 at 2, 0.45 at 3.
    assert knee([1, 2, 3, 5], [0.8, 0.08, 0.04, 0.0]) == 2
    assert knee([1, 2], [1, 0]) is None and knee([1, 2, 3], [0.0, 0.0, 0.0]) is None
    assert knee([1, 2, 3], [1.0, 0.9, 0.0]) is None


def test_what_is_untried_lies_between_the_chosen_and_the_next_fewer_gpus():
    one, five = trial("static", 1, (0.5,), requests=(1,)), trial("static", 5, (1.0,), requests=(1,))
    half = trial("static", 2.5, (1.0,), requests=(1,))
    assert untried([one, five], five) == 3 and untried([one, half], half) == 2
    assert untried([one, five], one) is None and untried([one, one], one) is None


@pytest.mark.parametrize(
    ("words", "tried", "taken"), [((), [1, 2, 3, 4, 6, 7, 9, 10, 12], 2), (("--sweep", 1, 3), [1, 3], 3)]
)
def test_a_sweep_that_nobody_listed_ends_at_the_fewest_gpus(plain, tmp_path, words, tried, taken):
    on = ("--load", 1.5, "--slo", 1, "--max-share", 3, "--gpus", 1)
    run(plain, *FEW, *on, *words, "--out", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "plan.json").read_text(encoding="utf-8"))
    sizes = [[size["gpus"] for size in each["sizes"]] for each in record["allocators"]]
    assert sizes == [tried, tried] and record["choice"]["gpus"] == taken and record["choice"]["meets"]
    assert any("Nothing was tried between" in each for each in record["caveats"]) == bool(words)


@pytest.mark.parametrize("load", [None, 0.5])
def test_requests_come_at_the_same_times_on_any_number_of_gpus(plain, load):
    planned = subject(plain, None, Overrides(load=load))
    one, three = played(planned.at(1)), played(planned.at(3))
    assert one.sum() > 500 and np.array_equal(one, three)
    demand = planned.demand.sum()
    assert load is None or demand == pytest.approx(load)
    # At its own times the log's second k is step k of its windows.
    if load is None:
        seconds = np.bincount(read_log(plain).time_s.astype(int), minlength=planned.scenario.steps)
        works = one[0, :-1].sum(axis=1) > 0
        assert np.array_equal(works, seconds[: planned.scenario.steps] > 0)


def test_a_log_with_tokens_is_played_call_by_call_and_a_call_without_room_gets_it(tokens):
    planned = subject(tokens, None, Overrides())
    assert planned.scenario.service == "requests" and planned.scenario.trace.own_times
    # The largest prompts go to the coordinator, as all do, and to the last specialist.
    assert planned.oversized.tolist() == [1, 0, 0, 1]
    assert planned.scenario.agents[3].kv_tokens == 400_010
    log = read_log(tokens)
    first = planned.scenario.agents[0]
    seconds = first.prefill_s_per_token * log.prompt_tokens.sum() + log.output_tokens.sum() * (
        first.iteration_s / first.max_batch + first.iteration_s_per_call
    )
    assert planned.demand[0] == pytest.approx(seconds / log.span_s)


def test_the_json_holds_what_the_environment_measures(plan, tokens):
    record = json.loads((plan / "plan.json").read_text(encoding="utf-8"))
    (allocator,) = record["allocators"]
    assert [size["gpus"] for size in allocator["sizes"]] == [1, 2, 3]
    scenario = subject(tokens, None, Overrides(), slo_s=20.0).at(3)
    windows = record["windows"]["count"]
    assert windows == scenario.windows.episodes
    metrics = evaluate("own", load_policy(str(LEARNED), scenario), scenario, windows, 0).metrics
    came = sum(each["arrived"] for each in metrics)
    late = sum(each["arrived"] * (1 - each["slo_attainment"]) for each in metrics)
    size = allocator["sizes"][2]
    assert size["attainment"]["mean"] == pytest.approx(1 - late / came)
    hours = windows * record["windows"]["length_s"] / 3600
    assert size["usd_per_hour"]["mean"] == pytest.approx(sum(each["cost_usd"] for each in metrics) / hours)
    day = record["day"]
    assert day["span_s"] == int(read_log(tokens).span_s)
    assert sum(map(np.mean, day["share_gpus"].values())) <= record["choice"]["gpus"]


def test_what_is_taken_away_can_be_used(plan, monkeypatch):
    assert (plan / "allocator.npz").read_bytes() == LEARNED.read_bytes()
    record = json.loads((plan / "plan.json").read_text(encoding="utf-8"))
    taken = load_scenario(plan / "scenario.toml")
    assert taken.platform.gpus == record["choice"]["gpus"] and taken.trace.own_times
    assert {agent.slo_s for agent in taken.agents} == {20.0}
    assert taken.windows.episodes > 0
    monkeypatch.chdir(plan)
    batch = Batch(taken, 1)
    batch.seed(0)
    batch.reset()
    names = {"view": batch.view}
    exec(record["take_away"]["python"], names)
    assert names["shares"].shape == (1, 4) and 0 < names["shares"].sum() <= 1 + 1e-9


def test_the_page_says_what_the_json_says_and_asks_for_nothing(plan):
    record = json.loads((plan / "plan.json").read_text(encoding="utf-8"))
    text = (plan / "plan.html").read_text(encoding="utf-8")
    own = text[text.index("<body>") :]
    assert all(word not in own for word in ("src=", "<link", "@import", "https://cdn"))
    assert f"on {record['choice']['gpus']:g} GPU" in own and "seed-0" in own
    assert all(f"<li>{sentence.split()[0]}" in own for sentence in record["caveats"])
    assert any("larger than its KV cache" in sentence for sentence in record["caveats"])
    assert any("not on your traffic" in sentence for sentence in record["caveats"])


def test_the_same_command_writes_the_same_bytes(plain, tmp_path):
    pages = []
    for _ in range(2):
        run(plain, *FEW, "--sweep", 1, "--out", tmp_path / "out")
        pages.append([(tmp_path / "out" / name).read_bytes() for name in ("plan.html", "plan.json")])
    assert pages[0] == pages[1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("config.json", "plan.html", "plan.json", "scenario.toml")
    ]


def test_caveats_say_what_the_package_detects(tmp_path):
    lines = log_lines("Mooncake", 400)
    planned = subject(write_log(tmp_path / "log.jsonl", lines), None, Overrides(), slo_s=0.5)
    few = choose([trial("static", 2, (0.9,), requests=(10,))], 0.5)
    said = " ".join(caveats(planned, few, [few.trial], 0.4, 0.5, priced=False))
    for part in (
        "multiples of 3 s",
        "not a day",
        "names no agents",
        "alone on a whole GPU",
        "one window",
        f"Played for {duration(planned.span_s)} without a break, it has 40.0 % of the requests within their "
        "objective, less than the 50 % asked for, which the windows hold with 90.0 %",
        " s are played, ",
        "$0.72",
    ):
        assert part in said
    more = [trial("static", gpus, (0.9,), requests=(10,)) for gpus in (1, 3)]
    assert not [
        each
        for each in caveats(planned, few, [more[0], few.trial], 0.6, 0.5, priced=True)
        if "between" in each
    ]
    gap = choose([more[1]], 0.5)
    said = caveats(planned, gap, more, 0.6, 0.5, priced=True)
    assert "Nothing was tried between 1 and 3 GPUs; list more with --sweep." in said
    assert "$" not in " ".join(caveats(planned, few, [few.trial], 0.6, 0.5, priced=True))
    assert [duration(seconds) for seconds in (90, 300, 7200, 3e5)] == [
        "90 s",
        "5 minutes",
        "2 hours",
        "3.47 days",
    ]


def test_models_that_the_gpus_cannot_hold_are_told_with_their_sizes():
    # 3 × 13.48 + 40.2 GB of weights; each cache is what two GPUs of 80 GB have beside its own weights.
    llm = load_scenario("llm")
    (said,) = of_memory(llm, 1)
    assert "80.6 GB of weights and 559.4 GB of KV caches" in said and "for 1 × h100 of 80 GB" in said
    assert "weights alone do not fit" in said
    (said,) = of_memory(llm, 2)
    assert "2 × h100" in said and "smaller caches" in said
    assert not list(of_memory(llm, 8)) and not list(of_memory(load_scenario("serverless"), 1))
    assert not list(of_memory(load_scenario("cluster-small"), 1))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A log of models, and the cluster of two GPUs that is made of it."""
    folder = tmp_path_factory.mktemp("models")
    log = write_log(folder / "models.csv", log_lines("models", 2000))
    given = [
        str(log),
        "--model",
        "llama-2-7b",
        "--nodes",
        "1",
        "--gpus",
        "2",
        "--out",
        str(folder / "it.toml"),
    ]
    run_command(training.cluster.main, training.cluster.ClusterConfig, given)
    return log, folder / "it.toml"


def test_a_log_of_models_is_planned_for_on_a_cluster(models, tmp_path):
    log, cluster = models
    asked = ("--policies", "lru", "popularity", "--sweep", 1, 3, "--steps", 60, "--episodes", 3)
    run(log, "--scenario", cluster, *asked, "--out", tmp_path)
    record = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert [size["gpus"] for size in record["allocators"][0]["sizes"]] == [1, 2, 3]
    stand = record["day"]["models_by_gpu"]
    assert len(stand) == record["choice"]["gpus"]
    assert {name for gpu in stand for name in gpu} <= set(record["platform"]["agents"])
    assert any(stand) and "<td>GPU 0</td>" in (tmp_path / "plan.html").read_text(encoding="utf-8")
    scenario = load_scenario(tmp_path / "scenario.toml")
    assert sum(node.gpus for node in scenario.nodes) == record["choice"]["gpus"]


def test_a_learned_allocator_of_clusters_is_taken_away_with_what_uses_it(models, tmp_path, monkeypatch):
    log, cluster = models
    learned = PRETRAINED / "linear-cluster-cluster-small" / "seed-0.npz"
    run(log, "--scenario", cluster, "--policies", learned, "--steps", 60, "--episodes", 3, "--out", tmp_path)
    record = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert (tmp_path / "allocator.npz").read_bytes() == learned.read_bytes()
    monkeypatch.chdir(tmp_path)
    batch = ClusterBatch(load_scenario("scenario.toml"), 1)
    batch.seed(0)
    batch.reset()
    names = {"view": batch.view}
    exec(record["take_away"]["python"], names)
    assert names["shares"].shape == batch.view.share.shape and names["shares"].sum() > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sweep", 1.5), "--sweep 1.5: a cluster has whole GPUs"),
        (("--gpus", 3), "which its file describes; change it there"),
        (("--policies", "static"), "policy 'static' is one for one pool of GPUs"),
        (
            ("--policies", "lru+it.npz"),
            "'it.npz' cannot split the GPUs below 'lru', a baseline of one GPU can",
        ),
    ],
)
def test_what_a_cluster_has_not_is_refused(models, tmp_path, capsys, words, said):
    log, cluster = models
    with pytest.raises(SystemExit):
        run(log, "--scenario", cluster, *words, "--out", tmp_path / "out")
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scenario", "llm"), "has no tokens"),
        (("--scenario", "magentic"), "plays sessions"),
        (("--trace", "other.csv"), "leave out --trace"),
        (("--sweep", "0.0001"), "at least"),
        (("--gpus", "0.0001"), "--gpus at least"),
        (("--attainment", "95"), "attainment must be at most 1"),
        (("--slo", "0"), "slo must be above 0"),
        (("--steps", "5"), "5 s, no longer than the objective of agent reasoning, 5 s: whoever still waits"),
        (("--policies", "nobody"), "unknown policy 'nobody'"),
    ],
)
def test_a_mistake_costs_one_line_and_no_work(plain, tmp_path, capsys, words, said):
    with pytest.raises(SystemExit):
        run(plain, *words, "--out", tmp_path / "out")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line
    assert not (tmp_path / "out").exists()


def test_a_log_too_short_for_anyone_to_be_late_is_refused(tmp_path):
    header = "time_s,prompt_tokens,output_tokens,agent"
    log = write_log(tmp_path / "two.csv", [header, "0,1413,201,coordinator", "0.9,704,234,vision"])
    with pytest.raises(ValueError, match=r"windows of 1 s, .* agent vision, 5 s: .*give a longer log"):
        subject(log, None, Overrides())


def test_a_log_of_several_days_is_played_whole(tmp_path):
    days = [f"{600 * k},nlp" for k in range(6 * 24 * 8)]
    planned = subject(write_log(tmp_path / "week.csv", ["time_s,agent", *days]), None, Overrides())
    windows, length = planned.scenario.windows.episodes, planned.scenario.steps * planned.scenario.dt
    assert length > 600 and windows <= 1000 and windows * length > 0.99 * planned.span_s


def test_a_log_of_sessions_is_refused_by_what_it_lacks(tmp_path, capsys):
    log = write_log(
        tmp_path / "s.csv", ["session,call,time_s,agent,prompt_tokens,output_tokens", "0,0,0,nlp,1,1"]
    )
    with pytest.raises(SystemExit):
        run(log, "--out", tmp_path / "out")
    (line,) = capsys.readouterr().err.splitlines()
    assert "a log of sessions" in line and f"--scenario magentic --trace {log}" in line


def test_a_log_of_times_on_a_gpu_is_planned_for_and_has_no_tokens(tmp_path):
    log = write_log(tmp_path / "images.csv", log_lines("image models", 100))
    run(log, "--policies", "static", "--sweep", 1, "--steps", 20, "--out", tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "plan.json").read_text(encoding="utf-8"))["log"]
    assert facts["prompt_tokens_p50"] is None and facts["requests"] == 100
    assert "prompt tokens" not in (tmp_path / "out" / "plan.html").read_text(encoding="utf-8")


def test_a_difference_is_told_without_powers_of_ten():
    assert signed({"mean": 0.283, "ci95": [-0.478, 1.42]}, 100, "points") == "+28 [-48, +140] points"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed")
def test_a_browser_without_network_draws_it_at_any_width_and_prints_it(plan, tmp_path):
    page = shutil.copy(plan / "plan.html", tmp_path / "alone.html")
    driver = browser(tmp_path / "profile", "--host-resolver-rules=MAP * ~NOTFOUND")
    try:
        for width in (1280, 400):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            driver.get(f"file://{page}")
            figures = driver.execute_script(
                "return [...document.querySelectorAll('.plotly-graph-div')].map(each => "
                "[each.id, each.querySelectorAll('.trace').length, each.getBoundingClientRect().right])"
            )
            assert [name for name, *_ in figures] == ["attainment", "curve", "day"]
            assert all(traces >= 2 and right <= width for _, traces, right in figures)
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            assert driver.get_log("browser") == []
        printed = driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
        assert len(printed) > 50_000
    finally:
        driver.quit()

"""What TensorBoard is given, and what it then shows in a browser."""

import re
import subprocess
import sys

import numpy as np
import pytest
from support.browser import CHROMIUM, DRIVER, browser
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from baselines import POLICIES
from gpualloc_env.scenario.loading import load_scenario
from training.artifacts.training_record import TrainingRecord
from training.compare import CompareConfig, main
from training.evaluation.evaluate import evaluate
from training.evaluation.headroom import with_headroom
from training.reporting.event_files import REPORT, passed, step_curves, write_runs

AGENTS = ("coordinator", "nlp", "vision", "reasoning")
KINDS = ("latency [s]", "backlog [requests]", "share [GPU]", "throughput [requests per s]")
# 34.920, 34.959 and 35.239: in order of J.
RUNS = ("1 round-robin", "2 static", "3 adaptive")
BASELINES = {"adaptive": 2.0, "static": 3.0}
RANKED = [
    "J (lower is better)",
    "headroom closed [%] (higher is better)",
    "latency p95 [s] (lower is better)",
    "within SLO [%] (higher is better)",
    "cost [$] (lower is better)",
]
CURVE = [(0, 9.0), (1000, 2.5), (2000, 1.5)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "out"
    main(CompareConfig(scenario="paper", policies=("static", "round-robin", "adaptive"), episodes=2, out=out))
    return out / "tensorboard"


def events_of(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run)).Reload()


def test_step_curves_of_the_first_second():
    curves = step_curves(evaluate("static", POLICIES["static"], load_scenario("paper"), 2, seed=0))
    # A quarter of the GPU serves 25 of the coordinator's first 80 requests: 67.5 wait on average.
    assert curves["share [GPU]"][0].tolist() == [0.25, 0.25, 0.25, 0.25, 1.0]
    assert curves["throughput [requests per s]"][0].tolist() == [25.0, 12.5, 15.0, 7.5, 60.0]
    assert curves["backlog [requests]"][0, 0] == pytest.approx(67.5)
    assert curves["latency [s]"][0, 0] == pytest.approx(67.5 / 80)


def test_an_agent_without_traffic_has_no_latency(tmp_path):
    path = tmp_path / "idle.toml"
    path.write_text('steps = 5\n[traffic]\nlaw = "constant"\nrates_rps = [80.0, 40.0, 45.0, 0.0]\n')
    latency = step_curves(evaluate("static", POLICIES["static"], load_scenario(path), 1, seed=0))[
        "latency [s]"
    ]
    assert np.isnan(latency[:, 3]).all() and (latency[:, :3] > 0).all()


def test_event_files_hold_every_curve(directory):
    assert sorted(path.name for path in directory.iterdir()) == [*RUNS, REPORT]
    for run in RUNS:
        events = events_of(directory / run)
        tags = set(events.Tags()["scalars"])
        curves = {f"paper over time: {kind}/{agent}" for kind in KINDS for agent in (*AGENTS, "all agents")}
        assert curves <= tags and all(tag.startswith("paper") for tag in tags)
        share = events.Scalars("paper over time: share [GPU]/all agents")
        assert [point.step for point in share] == list(range(100))
        assert share[99].wall_time - share[0].wall_time == pytest.approx(99.0)
        assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(events.summary_metadata)
    first, last = events_of(directory / RUNS[0]), events_of(directory / RUNS[2])
    assert first.Scalars("paper summary/J (lower is better)")[0].value == pytest.approx(34.920, abs=5e-4)
    (tag,) = [tag for tag in last.Tags()["scalars"] if tag.startswith("paper/5 J − J of round-robin")]
    assert [point.step for point in last.Scalars(tag)] == [1, 2]
    assert last.Scalars(tag)[1].value == pytest.approx(35.239 - 34.920, abs=1e-3)
    report = events_of(directory / REPORT)
    images = ["paper/1 J, best first", "paper/2 latency, SLO, throughput, cost", "paper figures/comparison"]
    assert report.Tags()["images"] == images
    (text,) = [tag for tag in report.Tags()["tensors"] if "report" in tag]
    page = report.Tensors(text)[0].tensor_proto.string_val[0].decode()
    assert "| 1 | **round-robin** | 34.92" in page and "110.258" in page and "756.061" in page
    assert "custom_scalars__config__" in report.Tags()["tensors"]


def test_a_training_run_passes_the_levels_of_baselines_on_its_own_chart(tmp_path):
    scenario = load_scenario("paper", steps=5)
    evaluations = [
        evaluate(name, POLICIES[policy], scenario, 2, seed=0, kind=kind)
        for name, policy, kind in (
            ("adaptive", "adaptive", "online"),
            ("static", "static", "online"),
            ("mine", "cmu", "learned"),
        )
    ]
    evaluations = with_headroom(evaluations, np.zeros(2))
    record = TrainingRecord({"learning_rate": 1e-3, "hidden": [64, 64]}, CURVE, BASELINES)
    assert (record.passed("static"), record.passed("adaptive"), record.best_level) == (1000, 2000, "adaptive")
    write_runs(tmp_path, evaluations, {}, {"mine": record})
    tag = "paper/3 J in validation by training step"
    found = {
        path.name[2:]: [(p.step, p.value) for p in events_of(path).Scalars(tag)]
        for path in tmp_path.glob("[1-3]*")
    }
    assert found == {"mine": CURVE, "adaptive": [(0, 2.0), (2000, 2.0)], "static": [(0, 3.0), (2000, 3.0)]}
    assert passed(evaluations, {"mine": record}) == ["mine passed adaptive by training step 2,000."]
    for run in tmp_path.glob("[1-3]*"):
        columns = events_of(run).summary_metadata["_hparams_/experiment"].plugin_data.content
        said = HParamsPluginData.FromString(columns).experiment
        shown = [metric.name.tag.removeprefix("paper summary/") for metric in said.metric_infos]
        assert shown[:5] == RANKED
        assert {"kind", "policy", "scenario", "training: hidden"} <= {info.name for info in said.hparam_infos}
        best = {
            "policy": run.name[2:],
            "closed": events_of(run).Scalars(f"paper summary/{RANKED[1]}")[0].value,
        }
        assert best["closed"] == 0 if best["policy"] == "adaptive" else best["closed"] != 0


def test_levels_far_above_a_run_and_charts_of_a_single_episode_are_left_out(tmp_path):
    scenario = load_scenario("paper", steps=5)
    evaluations = [
        evaluate(name, POLICIES[name], scenario, 1, seed=0) for name in ("adaptive", "static", "cmu")
    ]
    record = TrainingRecord({}, [(0, 2.5), (1000, 1.5)], BASELINES)
    write_runs(tmp_path, evaluations, {}, {"cmu": record})
    tags = {path.name[2:]: events_of(path).Tags()["scalars"] for path in tmp_path.glob("[1-3]*")}
    validated = {name for name, own in tags.items() if any(tag.startswith("paper/3 ") for tag in own)}
    assert validated == {"adaptive", "cmu"}
    assert not any("running mean" in tag for own in tags.values() for tag in own)


# TensorBoard draws some tabs inside shadow roots, which element searches do not enter.
COLLECT = """
const texts = [], images = [];
const walk = (node) => {
  const text = node.nodeType === Node.TEXT_NODE && node.textContent.trim();
  if (text && node.parentElement?.checkVisibility()) texts.push(text);
  if (node.nodeType === Node.ELEMENT_NODE) {
    if (['STYLE', 'SCRIPT', 'NOSCRIPT'].includes(node.tagName)) return;
    if (node.tagName === 'IMG' && node.complete) images.push([node.naturalWidth, node.naturalHeight]);
    if (node.shadowRoot) walk(node.shadowRoot);
  }
  node.childNodes.forEach(walk);
};
walk(document.body);
return [texts, images];
"""


@pytest.fixture
def tensorboard(directory):
    """Address of a TensorBoard that serves the comparison."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(directory), "--port", "0"]
    with subprocess.Popen(
        [*command, "--load_fast=false"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            assert server.stdout is not None
            matches = (re.search(r"http://localhost:\d+/", line) for line in server.stdout)
            yield next(match[0] for match in matches if match)
        finally:
            server.terminate()


BOTTOMS = """
return [...document.querySelectorAll('image-card img')].map(each => each.getBoundingClientRect().bottom);
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed")
def test_the_first_screen_answers_who_is_best_and_tabs_show_the_rest(tensorboard, tmp_path):
    from selenium.webdriver.support.wait import WebDriverWait

    driver = browser(tmp_path / "profile")

    def show(tab, loaded):
        """Open a tab, wait until it has loaded, and return what is visible: texts, sizes of images."""
        driver.get("about:blank")
        driver.get(f"{tensorboard}#{tab}" if tab else tensorboard)
        WebDriverWait(driver, 60).until(lambda _: loaded(*driver.execute_script(COLLECT)))
        driver.save_screenshot(str(tmp_path / f"{tab}.png"))
        return driver.execute_script(COLLECT)

    try:
        # Without a click: both cards of results, and the runs by rank.
        texts, images = show(
            "", lambda texts, images: len(images) >= 2 and "1 J, best first" in " ".join(texts)
        )
        assert set(RUNS) <= set(texts)
        bottoms = driver.execute_script(BOTTOMS)[:2]
        assert len(bottoms) == 2 and max(bottoms) < driver.execute_script("return window.innerHeight")
        assert all(width > 2 * height * 0.7 for width, height in images[:2])

        texts, _ = show("hparams", lambda texts, _: all(run in texts for run in RUNS))
        assert {"kind", "policy", "scenario", "paper summary/J (lower is better)"} <= set(texts)
        assert texts.count("online") == texts.count("paper") == len(RUNS)
        assert {"34.959", "34.920", "35.239"} <= set(texts)

        texts, _ = show("custom_scalars", lambda texts, _: "paper: latency [s]" in texts)
        assert set(AGENTS) <= set(texts)
    finally:
        driver.quit()
    assert all((tmp_path / f"{tab}.png").stat().st_size > 10_000 for tab in ("", "hparams", "custom_scalars"))

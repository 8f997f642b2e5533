"""What TensorBoard is given, and what it then shows in a browser."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from baselines import POLICIES
from gpualloc_env.scenario.loading import load_scenario
from training.compare import CompareConfig, main
from training.evaluation.evaluate import evaluate
from training.reporting.event_files import COLUMNS, step_curves

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
RUNS = ("adaptive", "round-robin", "static")
AGENTS = ("coordinator", "nlp", "vision", "reasoning")
KINDS = ("latency [s]", "backlog [requests]", "share [GPU]", "throughput [requests per s]")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "out"
    main(CompareConfig(scenario="paper", policies=("static", "round-robin", "adaptive"), episodes=2, out=out))
    return out / "tensorboard"


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
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert sorted(path.name for path in directory.iterdir()) == sorted([*RUNS, "comparison"])
    for run in RUNS:
        assert len(list((directory / run).iterdir())) == 1
        events = EventAccumulator(str(directory / run)).Reload()
        tags = set(events.Tags()["scalars"])
        assert {f"{kind}/{agent}" for kind in KINDS for agent in (*AGENTS, "all agents")} <= tags
        assert {f"summary/{name}" for name in COLUMNS} <= tags
        share = events.Scalars("share [GPU]/all agents")
        assert [point.step for point in share] == list(range(100))
        assert share[99].wall_time - share[0].wall_time == pytest.approx(99.0)
        assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(events.summary_metadata)
    events = EventAccumulator(str(directory / "comparison")).Reload()
    assert events.Tags()["images"] == ["comparison"]
    page = events.Tensors("comparison/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| static | 34.959 |" in page and "110.258" in page and "756.061" in page


def browser(profile):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1600,1200",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=Service(DRIVER))


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


@pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed")
def test_browser_shows_curves_rows_and_figure(tensorboard, tmp_path):
    from selenium.webdriver.support.wait import WebDriverWait

    driver = browser(tmp_path / "profile")

    def show(tab, loaded):
        """Open a tab, wait until it has loaded, and return what is visible: texts, sizes of images."""
        driver.get("about:blank")
        driver.get(f"{tensorboard}#{tab}")
        WebDriverWait(driver, 60).until(lambda _: loaded(*driver.execute_script(COLLECT)))
        driver.save_screenshot(str(tmp_path / f"{tab}.png"))
        return driver.execute_script(COLLECT)

    try:
        texts, _ = show("scalars", lambda texts, _: "backlog [requests]" in texts)
        assert set(RUNS) <= set(texts) and set(KINDS) <= set(texts)
        assert {f"backlog [requests]/{agent}" for agent in AGENTS} <= set(texts)

        texts, _ = show("hparams", lambda texts, _: all(texts.count(run) >= 2 for run in RUNS))
        assert {"kind", "policy", "scenario", "summary/rank", "summary/objective"} <= set(texts)
        # One row for each policy: its trial, and its policy column.
        assert [texts.count(run) for run in RUNS] == [2, 2, 2]
        assert texts.count("online") == texts.count("paper") == len(RUNS)
        assert {"34.959", "34.920", "35.239"} <= set(texts)

        _, images = show("images", lambda _, images: any(width > 1000 for width, _ in images))
        assert [1950, 1365] in images
    finally:
        driver.quit()
    assert all((tmp_path / f"{tab}.png").stat().st_size > 10_000 for tab in ("scalars", "hparams", "images"))

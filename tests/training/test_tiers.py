"""What a longer keep-alive buys, and the memory that it takes."""

import json

import pytest
from support.log_samples import log_lines, write_log

import training.tiers
from gpualloc_env import load_scenario
from training import cluster
from training.cli import run
from training.tiers import TiersConfig, main

SHORT = (
    "--scenario",
    "cluster-small",
    "--load",
    "0.02",
    "--steps",
    "240",
    "--episodes",
    "3",
    "--policies",
    "lru",
)


def test_a_longer_keep_alive_takes_memory_and_spares_wakes_and_cold_starts(tmp_path, capsys):
    times = ("--sleep-after-s", "0", "500", "--keep-alive-s", "5", "500")
    run(main, TiersConfig, [*SHORT, *times, "--out", str(tmp_path / "out")])
    written = json.loads((tmp_path / "out" / "tiers.json").read_text())
    rows = written["rows"]
    found = {(row["sleep_after_s"], row["keep_alive_s"]): row["metrics"] for row in rows}
    # A model that is gone after 5 s does not stay for 500.
    assert list(found) == [(0, 5), (0, 500), (5, 5), (500, 500)]
    gone, asleep, _, stays = found.values()
    assert gone["cold_calls"] > asleep["cold_calls"] and asleep["woken_calls"] > stays["woken_calls"]
    assert gone["host_memory_held"] < asleep["host_memory_held"]
    assert asleep["gpu_memory_held"] < stays["gpu_memory_held"]
    assert gone["hot_calls"] < asleep["hot_calls"] <= stays["hot_calls"]
    shown = capsys.readouterr().out
    assert "leaves its GPU" in shown and "3 held-out episodes" in shown and written["episodes"] == 3


def test_of_a_log_its_windows_are_played_and_counted(tmp_path, capsys):
    log, made = write_log(tmp_path / "log.csv", log_lines("models", 600)), tmp_path / "mine.toml"
    words = (str(log), "--model", "phi-2", "--steps", "40", "--out", str(made))
    run(cluster.main, cluster.ClusterConfig, words)
    words = ("--scenario", str(made), "--policies", "lru", "--split", "all", "--episodes", "100")
    times = ("--sleep-after-s", "0", "--keep-alive-s", "5")
    run(main, TiersConfig, [*words, *times, "--out", str(tmp_path / "out")])
    windows = load_scenario(made, split="all").windows.episodes
    assert json.loads((tmp_path / "out" / "tiers.json").read_text())["episodes"] == windows < 100
    assert f"mine: {windows} windows of the whole log" in capsys.readouterr().out


def test_an_out_that_cannot_be_written_is_refused_before_anything_is_played(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(training.tiers, "result", lambda *_: pytest.fail("something was played"))
    with pytest.raises(FileExistsError, match="is not empty and holds no earlier results"):
        main(TiersConfig(scenario="cluster-small", out=tmp_path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--scenario", "llm"), "scenario 'llm' has no nodes, so no model sleeps"),
        (("--policies", "static"), "policy 'static' is one for one pool of GPUs"),
        (("--keep-alive-s", "-1"), "keep_alive_s must be at least 0"),
    ],
)
def test_what_has_no_tiers_is_refused(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(main, TiersConfig, [*SHORT, *words, "--out", str(tmp_path / "out")])
    assert message in capsys.readouterr().err

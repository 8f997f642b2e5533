"""What a longer keep-alive buys, and the memory that it takes."""

import json

import pytest

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
    rows = json.loads((tmp_path / "out" / "tiers.json").read_text())["rows"]
    found = {(row["sleep_after_s"], row["keep_alive_s"]): row["metrics"] for row in rows}
    # A model that is gone after 5 s does not stay for 500.
    assert list(found) == [(0, 5), (0, 500), (5, 5), (500, 500)]
    gone, asleep, _, stays = found.values()
    assert gone["cold_calls"] > asleep["cold_calls"] and asleep["woken_calls"] > stays["woken_calls"]
    assert gone["host_memory_held"] < asleep["host_memory_held"]
    assert asleep["gpu_memory_held"] < stays["gpu_memory_held"]
    assert gone["hot_calls"] < asleep["hot_calls"] <= stays["hot_calls"]
    assert "leaves its GPU" in capsys.readouterr().out


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

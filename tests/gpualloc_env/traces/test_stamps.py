"""The clock of a log: what its stamps are multiples of, in which unit, and who may read it."""

import json
import os
import subprocess
import sys
import threading
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from support.places import ROOT

from gpualloc_env.traces import TraceError, read_log
from gpualloc_env.traces.stamps import clock, spread


def mooncake(path, stamps, **others):
    lines = ({"timestamp": stamp, "input_length": 9, "output_length": 9, **others} for stamp in stamps)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def every_three_seconds(jitter_ms):
    """Ten requests at each of 1,200 stamps 3 s apart, each stamp some milliseconds off."""
    stamps = 3000 * np.arange(1200) + np.random.default_rng(0).integers(-jitter_ms, jitter_ms + 1, 1200)
    return np.repeat(stamps.clip(0), 10)


@pytest.mark.parametrize(
    ("stamps", "quantum"),
    [
        ([0.0, 3.0, 3.0, 9.0, 21.0], 3.0),
        ([0.0, 6.0, 6.0, 15.0], 3.0),
        ([0.0, 0.1, 0.3, 0.3, 1.0], 0.1),
        ([0.0, 3.0, 5.999, 9.001, 12.0], 3.0),
        ([5.0, 6.0, 6.0, 9.0], 1.0),
        ([0.0, 0.003, 0.003, 0.007], 0.001),
    ],
)
def test_the_quantum_is_what_the_stamps_are_multiples_of(stamps, quantum):
    assert clock(np.array(stamps)).quantum_s == pytest.approx(quantum)


@pytest.mark.parametrize("miss_s", [-1.4, -0.02, 0.011, 0.5, 1.5])
def test_one_stamp_does_not_decide_the_clock_and_is_named(miss_s):
    stamps = every_three_seconds(3) / 1000
    stamps[stamps == stamps[6000]] += miss_s
    found = clock(stamps)
    assert found.quantum_s == 3.0
    assert found.odd.tolist() == [6000]


def test_the_report_of_a_log_names_the_odd_line(tmp_path):
    stamps = every_three_seconds(0)
    stamps[6000:6010] += 500
    log = read_log(mooncake(tmp_path / "log.jsonl", stamps.tolist()))
    assert log.quantum_s == 3.0
    assert log.notes == ("stamps are multiples of 3 s but for those of lines 6001",)


def test_stamps_without_a_common_measure_are_left_almost_as_they_are():
    stamps = np.cumsum(np.random.default_rng(1).integers(0, 200, 3000)) / 1000
    found = clock(stamps)
    assert found.quantum_s == pytest.approx(0.001)
    assert np.abs(spread(stamps, found.quantum_s) - stamps).max() < 0.001


def test_requests_of_one_stamp_are_spread_evenly_and_not_beyond_the_next():
    stamps = np.array([0, 0, 0, 6, 6, 7, 7.0])
    assert spread(stamps, 3.0) == pytest.approx([0, 1, 2, 6, 6.5, 7, 8.5])


def test_stamps_that_miss_their_quantum_by_milliseconds_are_spread_as_far():
    stamps = np.array([0, 0, 3000, 3000, 5999, 5999, 9001, 9001.0]) / 1000
    found = clock(stamps)
    assert found.quantum_s == 3.0
    # Not beyond the next stamp, which is 2.999 s after the one at 3 s.
    assert spread(stamps, found.quantum_s) == pytest.approx([0, 1.5, 3, 4.4995, 5.999, 7.499, 9.001, 10.501])


def test_a_log_with_fine_stamps_is_left_as_it_is_but_for_the_few_that_tie():
    stamps = np.cumsum(np.random.default_rng(0).integers(0, 200, 1000)) / 1000
    moved = spread(stamps, clock(stamps).quantum_s)
    assert (np.diff(moved) >= 0).all() and (moved >= stamps).all() and (moved - stamps).max() < 0.01


def line_of(name, second):
    """A request at a whole second in the format of a file of that name."""
    if name == "a.csv":
        return f"2023-11-16 00:{second // 60:02}:{second % 60:02},9,9"
    return f"{second},nlp" if name == "p.csv" else f"{second},9,9"


def test_whole_seconds_are_spread_alike_in_every_format(tmp_path):
    seconds = np.sort(np.random.default_rng(0).integers(0, 1800, 6000))
    logs = [mooncake(tmp_path / "m.jsonl", (1000 * seconds).tolist())]
    for name, header in {
        "b.csv": "Timestamp,Request tokens,Response tokens",
        "p.csv": "time_s,agent",
        "a.csv": "TIMESTAMP,ContextTokens,GeneratedTokens",
    }.items():
        (tmp_path / name).write_text(
            "\n".join([header, *(line_of(name, s) for s in seconds.tolist())]) + "\n"
        )
        logs.append(tmp_path / name)
    first, *others = map(read_log, logs)
    assert first.quantum_s == 1.0 and (np.diff(first.time_s) > 0).all()
    for other in others:
        assert other.quantum_s == 1.0
        assert other.time_s == pytest.approx(first.time_s, abs=1e-6)


@pytest.mark.parametrize(
    ("stamps", "others", "said"),
    [
        ([0.011, 3.611, 7200.5], {}, "they have fractions"),
        ([0, 3, 7200], {"chat_id": 1, "turn": 1}, "it has the key 'chat_id'"),
        (list(range(7200)), {}, "as milliseconds they would be 1,000 requests/s"),
    ],
)
def test_seconds_under_keys_of_milliseconds_are_known_by_evidence(tmp_path, stamps, others, said):
    path = mooncake(tmp_path / "log.jsonl", stamps, **others)
    log = read_log(path)
    assert log.time_s[-1] == pytest.approx(stamps[-1] - stamps[0])
    assert said in log.notes[0] and "--time-unit ms" in log.notes[0]
    assert read_log(path, "ms").time_s[-1] == pytest.approx((stamps[-1] - stamps[0]) / 1000)


def test_an_environment_takes_the_unit_that_is_asked_for(tmp_path):
    path = mooncake(tmp_path / "log.jsonl", (3000 * np.arange(4000)).tolist())
    spans = []
    for unit in (None, "s"):
        env = gym.make("GPUAlloc-v0", scenario="trace", trace=str(path), time_unit=unit)
        spans.append(env.unwrapped.scenario.windows.accounting)
    assert "over 12000 s" in spans[0] and "over 12000000 s" in spans[1]


@pytest.mark.parametrize("date", ["0001-01-01 00:00:00", "1969-12-31 23:59:59", "2262-01-01 00:00:00"])
def test_dates_that_nanoseconds_cannot_count_are_refused(tmp_path, date):
    path = tmp_path / "a.csv"
    path.write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{date},1,1\n2263-11-16 00:00:00,1,1\n")
    with pytest.raises(TraceError, match=r"line 2, field TIMESTAMP: .* from 1970 to 2261"):
        read_log(path)


def test_a_pipe_is_read_as_a_file_is(tmp_path):
    path = mooncake(tmp_path / "log.jsonl", [0, 3000, 6000])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    assert read_log(pipe).time_s.tolist() == read_log(path).time_s.tolist()
    writer.join()
    program = "from gpualloc_env.traces import read_log; from pathlib import Path\n"
    program += "print(read_log(Path('-')).time_s.tolist())"
    with path.open() as log:
        run = subprocess.run([sys.executable, "-c", program], stdin=log, capture_output=True, cwd=ROOT)
    assert run.stdout.strip() == b"[0.0, 3.0, 6.0]"


def test_a_folder_is_called_one(tmp_path):
    with pytest.raises(TraceError, match="is a folder; give the path of a request log in it"):
        read_log(tmp_path)


FORKED = """
import os, sys
from pathlib import Path
from gpualloc_env.traces import TraceError, read_log
first, second, broken = map(Path, sys.argv[1:])
read_log(first)  # whose threads a child does not have
child = os.fork()
if child == 0:
    times = read_log(second).time_s.tolist()
    try:
        read_log(broken)
    except TraceError as error:
        os._exit(0 if times == [0.0, 3.0, 6.0] and "line 2" in str(error) else 1)
    os._exit(2)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
def test_a_log_can_be_read_after_a_fork(tmp_path):
    paths = [
        mooncake(tmp_path / "1.jsonl", range(0, 9000, 10)),
        mooncake(tmp_path / "2.jsonl", [0, 3000, 6000]),
    ]
    paths.append(mooncake(tmp_path / "3.jsonl", [0, -1]))
    command = [sys.executable, "-c", FORKED, *map(str, paths)]
    assert subprocess.run(command, check=False, timeout=60, cwd=ROOT).returncode == 0


def test_environments_in_forked_processes_play_other_loads_of_a_log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("time_s,agent\n" + "".join(f"{k / 3:.3f},nlp\n" for k in range(3000)))
    make = partial(gym.make, "GPUAlloc-v0", scenario="trace", trace=str(path))
    loads = [partial(make, load=load) for load in (0.6, 0.8)]
    together = gym.vector.AsyncVectorEnv(loads, context="fork")
    try:
        together.reset_async(seed=0)
        observation, _ = together.reset_wait(timeout=60)
    finally:
        together.close(terminate=True)
    for k, load in enumerate(loads):
        assert np.array_equal(observation[k], load().reset(seed=k)[0])

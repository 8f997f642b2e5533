import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from azure_sample import AZURE_HEADER, azure_lines

from gpualloc_env import Batch, Trace, TraceError, load_scenario
from gpualloc_env.traces import read_log

REAL_LOG = Path(__file__).parents[2] / "shared" / "traces" / "AzureLLMInferenceTrace_code.csv"
GOOD = (
    "2023-11-16 18:17:03.9799600,4808,10",
    "2023-11-16 18:17:04.0319600,3180,8",
    "2023-11-16 18:17:05.9799600,110,27",
)


@pytest.fixture
def written(tmp_path):
    """Write lines after the header and return the path."""

    def write(*lines, header=AZURE_HEADER, end="\n", name="log.csv"):
        path = tmp_path / name
        text = end.join([header, *lines]) + end
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


def windows_of(path, split="all", **changes):
    return load_scenario("trace", trace=path, split=split, **changes).windows


def test_times_and_tokens_are_read(written):
    log = read_log(written(*GOOD))
    assert log.time_s == pytest.approx([0, 0.052, 2])
    assert log.prompt_tokens.tolist() == [4808, 3180, 110]
    assert log.output_tokens.tolist() == [10, 8, 27]


def test_lines_may_end_as_windows_ends_them_and_the_last_may_not_end_at_all(written):
    path = written(*GOOD, end="\r\n")
    assert len(read_log(path).time_s) == 3
    path.write_text("\n".join([AZURE_HEADER, *GOOD]))
    assert len(read_log(path).time_s) == 3


def test_columns_may_stand_in_any_order_with_others_between(written):
    log = read_log(
        written(
            "8,x,2023-11-16 18:17:03.5,5",
            "9,y,2023-11-16 18:17:04,6",
            header="GeneratedTokens,Model,TIMESTAMP,ContextTokens",
        )
    )
    assert log.time_s.tolist() == [0, 0.5] and log.prompt_tokens.tolist() == [5, 6]


def test_times_with_an_offset_from_utc_are_read_as_the_2024_logs_have_them(written):
    log = read_log(written("2024-05-10 00:00:00.009930+00:00,2162,5", "2024-05-10 00:00:01+00:00,2399,6"))
    assert log.time_s == pytest.approx([0, 0.99007])


def test_work_is_tokens_over_their_mean_and_one_where_there_are_none(written):
    log = read_log(written("2023-11-16 18:17:03,10,0", "2023-11-16 18:17:04,20,10"))
    assert log.work.tolist() == [0.5, 1.5]
    log = read_log(written("2023-11-16 18:17:03,0,0", "2023-11-16 18:17:04,0,0"))
    assert log.work.tolist() == [1, 1]


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("yesterday,1,2", r"line 5, field TIMESTAMP: 'yesterday' should be a time like"),
        (",1,2", r"line 5, field TIMESTAMP: '' should be a time like"),
        ("2023-13-16 18:17:06,1,2", r"line 5, field TIMESTAMP: '2023-13-16 18:17:06'"),
        ("2023-11-16 18:17:06,-1,2", r"line 5, field ContextTokens: '-1' should be a number of tokens"),
        ("2023-11-16 18:17:06,many,2", r"line 5, field ContextTokens: 'many' should be a number of tokens"),
        ("2023-11-16 18:17:06,1.5,2", r"line 5, field ContextTokens: '1.5' should be a number of tokens"),
        ("2023-11-16 18:17:06,nan,2", r"line 5, field ContextTokens: 'nan' should be a number of tokens"),
        ("2023-11-16 18:17:06,1,", r"line 5, field GeneratedTokens: '' should be a number of tokens"),
        ("2023-11-16 18:17:06,1", r"line 5"),
        ("2023-11-16 18:17:06", r"line 5"),
        ("", r"line 5"),
        ("2023-11-16 18:17:06,1,2,3", r"line 5: 4 fields where the header has 3"),
        (
            "2023-11-16 18:17:01,1,2",
            r"line 5, field TIMESTAMP: '2023-11-16 18:17:01' should be no earlier than the line before; sort",
        ),
    ],
)
def test_a_bad_line_is_named_by_file_line_and_field(written, name, line, message):
    path = written(*GOOD, line, "2023-11-16 18:17:09,1,2", name=name)
    with pytest.raises(TraceError, match=message) as error:
        read_log(path)
    assert str(error.value).startswith(str(path))


def test_the_first_of_several_bad_lines_is_named(written):
    lines = [*GOOD, "2023-11-16 18:17:06,x,2", "2023-11-16 18:17:07,y,2"]
    with pytest.raises(TraceError, match="line 5, field ContextTokens: 'x'"):
        read_log(written(*lines))


def test_bytes_that_are_not_text_are_named_by_line(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes("\n".join([AZURE_HEADER, *GOOD]).encode() + b"\n2023-11-16 18:17:06,\xff,6\n")
    with pytest.raises(TraceError, match=r"log\.csv, line 5"):
        read_log(path)


def test_a_missing_column_is_named_with_those_that_are_there(written):
    path = written("1,2,3", header="TIMESTAMP,Prompt,GeneratedTokens")
    message = r"line 1: no column 'ContextTokens'; .*this file has TIMESTAMP, Prompt, GeneratedTokens"
    with pytest.raises(TraceError, match=message):
        read_log(path)


def test_a_missing_file_a_folder_and_an_empty_file_are_told_apart(tmp_path):
    with pytest.raises(TraceError, match=r"gone\.csv: no such file"):
        read_log(tmp_path / "gone.csv")
    with pytest.raises(TraceError):
        read_log(tmp_path)
    path = tmp_path / "empty.csv"
    path.touch()
    with pytest.raises(TraceError, match=r"empty\.csv: the file is empty; a log has a header"):
        read_log(path)


@pytest.mark.parametrize("lines", [(), GOOD[:1], (GOOD[0], GOOD[0])])
def test_a_log_that_spans_no_time_is_refused(written, lines):
    with pytest.raises(TraceError, match=f"{len(lines)} requests at one moment; a log needs a span"):
        read_log(written(*lines))


def test_a_gzipped_log_reads_as_the_plain_one(written):
    lines = azure_lines(200)
    plain, packed = read_log(written(*lines)), read_log(written(*lines, name="log.csv.gz"))
    assert (plain.time_s == packed.time_s).all() and (plain.work == packed.work).all()


@pytest.mark.parametrize("missing", [1, 8, 100, 4000])
def test_a_truncated_gzip_is_refused_as_such(written, missing):
    path = written(*azure_lines(500), name="log.csv.gz")
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(TraceError, match=r"log\.csv\.gz: .*(truncated|gzip|compress|end-of-stream)"):
        read_log(path)


def test_each_request_visits_the_coordinator_and_the_specialist_of_its_prompt_length(written):
    lines = [f"2023-11-16 18:17:{second:02d},{prompt},0" for second, prompt in enumerate((900, 100, 500))]
    scenario = load_scenario("trace", trace=written(*lines), split="all", steps=1, dt=0.01)
    # Work 1.8, 0.2 and 1 at the coordinator; the shortest to NLP, the longest to reasoning.
    arrivals = scenario.windows.arrivals[:, 0]
    assert arrivals[arrivals.any(axis=1)].tolist() == [
        pytest.approx([1.8, 0, 0, 1.8]),
        pytest.approx([0.2, 0.2, 0, 0]),
        pytest.approx([1, 0, 1, 0]),
    ]


def test_one_agent_alone_gets_every_request(azure_log):
    agents = load_scenario("trace").agents[:1]
    scenario = load_scenario("trace", trace=azure_log, steps=5).model_copy(update={"agents": agents})
    assert scenario.windows.arrivals.shape[2] == 1


@pytest.mark.parametrize("steps", [5, 7])
def test_every_request_is_in_one_window_or_in_the_remainder(azure_log, steps):
    log = read_log(azure_log)
    windows = {split: windows_of(azure_log, split, steps=steps) for split in ("train", "eval", "all")}
    accounting = windows["all"].accounting
    assert {w.accounting for w in windows.values()} == {accounting}
    counted = r"(\d+) in (\d+) training.* (\d+) in (\d+) evaluation.* (\d+) in the remainder"
    parts = re.search(counted, accounting)
    train, train_windows, held_out, eval_windows, remainder = map(int, parts.groups())
    assert train + held_out + remainder == len(log.time_s) == 3000
    assert len(windows["train"].arrivals) == train_windows
    assert len(windows["eval"].arrivals) == eval_windows == np.ceil(0.3 * (train_windows + eval_windows))
    # In time order, the first requests are trained on: their work is what the windows hold.
    work = np.cumsum(log.work)
    played = {split: w.arrivals[:, :-1, 0].sum() for split, w in windows.items()}
    assert played["train"] == pytest.approx(work[train - 1])
    assert played["eval"] == pytest.approx(work[train + held_out - 1] - work[train - 1])
    assert played["all"] == pytest.approx(played["train"] + played["eval"])
    specialists = windows["all"].arrivals[:, :-1, 1:].sum()
    assert specialists == pytest.approx(played["all"])


def test_training_windows_come_before_evaluation_windows_and_share_nothing(azure_log):
    everything = windows_of(azure_log, "all", steps=5).arrivals
    train = windows_of(azure_log, "train", steps=5).arrivals
    held_out = windows_of(azure_log, "eval", steps=5).arrivals
    assert (np.concatenate([train[:, :-1], held_out[:, :-1]]) == everything[:, :-1]).all()
    # The last row of a window only feeds its final observation: the next window's first row,
    # but nothing of evaluation enters training.
    assert (train[:-1, -1] == train[1:, 0]).all()
    assert (train[-1, -1] == 0).all()


@pytest.mark.parametrize("load", [0.3, 0.8, 2.0])
def test_the_whole_log_has_the_load_asked_for(azure_log, load):
    scenario = load_scenario("trace", trace=azure_log, load=load, split="all", steps=1, dt=1)
    log = read_log(azure_log)
    base = np.array([agent.throughput_rps for agent in scenario.agents])
    span = float(re.search(r"stretched to ([\d.]+) s", scenario.windows.accounting).group(1))
    arrivals = scenario.windows.arrivals[:, 0]
    # The windows leave a remainder of less than one step; its work is what the log has beyond them.
    covered = arrivals[:, 0].sum() / log.work.sum()
    busy = (arrivals / base).sum() / covered
    assert busy / span == pytest.approx(load, rel=0.02)


def test_a_higher_load_shortens_time_and_drops_nothing(azure_log):
    slow, fast = (windows_of(azure_log, load=load, steps=1).arrivals[:, 0, 0] for load in (0.4, 0.8))
    assert len(slow) == pytest.approx(2 * len(fast), abs=2)
    assert slow.sum() == pytest.approx(fast.sum(), rel=0.05)


def test_environment_k_starts_at_window_seed_plus_k_and_goes_on_from_there(azure_log):
    scenario = load_scenario("trace", trace=azure_log, steps=6)
    windows = scenario.windows.arrivals
    batch = Batch(scenario, 3)
    batch.seed(len(windows) - 1)
    for episode in range(3):
        batch.reset()
        for k in range(3):
            expected = windows[(len(windows) - 1 + k + episode) % len(windows)]
            assert (batch.arrivals[k] == expected).all()


def test_an_episode_longer_than_the_log_is_refused_with_the_remedy(azure_log):
    message = r"azure\.csv: at load 0\.8 the log lasts .* 0 windows of 1000 s, none of them .*fewer steps"
    with pytest.raises(TraceError, match=message):
        windows_of(azure_log, "train", steps=1000)


def test_a_log_of_one_window_can_be_evaluated_on_but_not_trained_on(azure_log):
    assert len(windows_of(azure_log, "eval", steps=100).arrivals) == 1
    with pytest.raises(TraceError, match=r"none of them for split 'train'; ask for fewer steps"):
        windows_of(azure_log, "train", steps=100)


def test_trace_settings_are_the_documented_ones():
    assert Trace().load == 0.8 and Trace().eval_fraction == 0.3 and Trace().split == "train"


@pytest.mark.skipif(not REAL_LOG.is_file(), reason="the real log is not here")
def test_the_real_azure_log_is_read_whole():
    log = read_log(REAL_LOG)
    assert len(log.time_s) == 8819
    assert log.time_s[-1] == pytest.approx(0.95 * 3600, rel=0.01)
    per_second = np.bincount(log.time_s.astype(int))
    assert per_second.mean() == pytest.approx(2.57, abs=0.01)
    assert per_second.var() / per_second.mean() == pytest.approx(13.2, abs=0.2)
    assert log.work.mean() == pytest.approx(1)


@pytest.mark.skipif(not REAL_LOG.is_file(), reason="the real log is not here")
def test_the_real_azure_log_plays(azure_log):
    scenario = load_scenario("trace", trace=REAL_LOG)
    batch = Batch(scenario, 2)
    batch.seed(0)
    batch.reset()
    for _ in range(scenario.steps):
        batch.step(np.full((2, 4), 0.25))
    assert np.isfinite(batch.episode).all() and batch.arrived[:, scenario.steps - 1].any()

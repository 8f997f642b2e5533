import gzip
import json

import numpy as np
import pytest
from support.log_samples import AGENTS, HEADERS, LINES, NAMED, log_lines, write_log
from support.places import REAL_LOGS

import gpualloc_env.traces.lines
from gpualloc_env import TraceError
from gpualloc_env.traces.formats import FORMATS, read_log

TIME = {
    "Azure": "TIMESTAMP",
    "BurstGPT": "Timestamp",
    "Mooncake": "timestamp",
    "plain": "time_s",
    "plain with tokens": "time_s",
    "models": "time_s",
    "image models": "gmt_create",
}
# Seconds 0, 3 and 9 of a log: a coordinator's, NLP's and a reasoner's request.
GOOD = [(0.0, 4808, 10, 0), (3.0, 3180, 8, 1), (9.0, 110, 27, 3)]


@pytest.fixture
def written(tmp_path):
    def write(*lines, name="log.csv", end="\n"):
        return write_log(tmp_path / name, lines, end)

    return write


def good_lines(form):
    lines = [LINES[form](*request) for request in GOOD]
    return [HEADERS[form], *lines] if HEADERS[form] else lines


def same(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("time_s", "work", "prompt_tokens", "agent", "agent_names")
    )


def refused(path, message):
    with pytest.raises(TraceError, match=message) as error:
        read_log(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


every_format = pytest.mark.parametrize("form", FORMATS)


@every_format
def test_times_and_work_are_read(written, form):
    log = read_log(written(*good_lines(form)))
    assert log.time_s == pytest.approx([0, 3, 9], abs=0.01)
    if form == "plain":
        assert log.prompt_tokens is None
        assert [log.agent_names[code] for code in log.agent] == ["coordinator", "nlp", "reasoning"]
        assert log.work == pytest.approx([0.04, 0.032, 0.108])
    else:
        assert (log.agent is None) == (form not in NAMED)
        # Images are timed as a whole.
        timed = [4818, 3188, 137] if log.output_tokens is None else [4808, 3180, 110]
        assert log.prompt_tokens.tolist() == timed
        # 4818, 3188 and 137 tokens over their mean, 2714 1/3.
        assert log.work * 8143 / 3 == pytest.approx([4818, 3188, 137])


def test_a_log_may_have_tokens_and_name_agents(written):
    log = read_log(
        written("time_s,agent,prompt_tokens,output_tokens", "1,nlp,10,2", "2,vision,20,4", "4,nlp,30,6")
    )
    assert log.prompt_tokens.tolist() == [10, 20, 30] and log.output_tokens.tolist() == [2, 4, 6]
    assert [log.agent_names[code] for code in log.agent] == ["nlp", "vision", "nlp"]
    assert log.work.tolist() == [0.5, 1.0, 1.5]
    refused(
        written("time_s,agent,prompt_tokens,output_tokens", "1,nlp,10,2", "2,nlp,-1,4"),
        "line 3, field prompt_tokens: '-1' should be a number of tokens",
    )


@every_format
@pytest.mark.parametrize("name", ["log", "log.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("tail", [[], ["", " "]])
def test_packing_line_ends_marks_and_trailing_blank_lines_change_nothing(
    written, form, name, end, mark, tail
):
    first, *rest = log_lines(form, 50)
    assert same(
        read_log(written(mark + first, *rest, *tail, name=name, end=end)), read_log(written(first, *rest))
    )


@every_format
def test_the_last_line_may_not_end(tmp_path, form):
    path = tmp_path / "log"
    path.write_text("\n".join(good_lines(form)))
    assert len(read_log(path).time_s) == 3


@every_format
def test_blocks_of_lines_join_without_a_seam(written, form, monkeypatch):
    path = written(*log_lines(form, 300))
    whole = read_log(path)
    monkeypatch.setattr(gpualloc_env.traces.lines, "BLOCK", 1000)
    assert same(read_log(path), whole) and len(whole.time_s) == 300
    refused(written(*log_lines(form, 300), good_lines(form)[-1]), r"line 30[12], .* no earlier than")


def test_columns_may_stand_in_any_order_with_others_between_and_quotes_around(written):
    for line in ("8,x,2023-11-16 18:17:03.5,5", '"8","x, y",2023-11-16 18:17:03.5, 5 '):
        log = read_log(
            written('GeneratedTokens,"Model",TIMESTAMP, ContextTokens', line, "9,y,2023-11-16 18:17:04,6")
        )
        assert log.time_s.tolist() == [0, 0.5] and log.prompt_tokens.tolist() == [5, 6]


def test_azure_times_with_an_offset_from_utc_are_read_as_the_2024_logs_have_them(written):
    lines = "2024-05-10 00:00:00.009930+00:00,2162,5", "2024-05-10 00:00:01+00:00,2399,6"
    assert read_log(written(HEADERS["Azure"], *lines)).time_s == pytest.approx([0, 0.99007])


def test_burst_gpt_logs_of_both_releases_are_read_and_failed_requests_kept(written):
    old = written(HEADERS["BurstGPT"], "5,ChatGPT,472,18,490,Conversation log", "45,GPT-4,10,0,10,API log")
    log = read_log(old)
    assert log.time_s.tolist() == [0, 40] and log.work == pytest.approx([1.96, 0.04])
    later = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
    lines = "5.0,,1.5,ChatGPT,472,18,490,Conversation log", "45.0,7,,GPT-4,10,0,10,API log"
    assert same(read_log(written(later, *lines)), log)


def test_plain_logs_start_at_any_time_and_need_no_work(written):
    log = read_log(written("agent,time_s", "a,1700000000.25", "b,1700000001", "a,1700000002"))
    assert log.time_s.tolist() == [0, 0.75, 1.75] and log.work.tolist() == [1, 1, 1]
    assert log.agent.tolist() == [0, 1, 0] and log.agent_names == ("a", "b")


def test_work_is_one_where_there_are_no_tokens(written):
    lines = HEADERS["Azure"], "2023-11-16 18:17:03,0,0", "2023-11-16 18:17:04,0,0"
    assert read_log(written(*lines)).work.tolist() == [1, 1]


def field(form, position, text):
    """The good log with one value of its last request replaced; Mooncake's values are given as JSON."""
    lines, last = good_lines(form), LINES[form](*GOOD[-1])
    if form == "Mooncake":
        keys = "timestamp", "input_length", "output_length"
        values = json.loads(last)
        values[keys[position]] = "here"
        return [*lines, json.dumps(values).replace('"here"', text or "null"), last]
    values = last.split(",")
    columns = {"BurstGPT": [0, 2, 3], "plain": [0, 2, 1], "models": [0, 2, 3], "image models": [0, 1, 3]}
    values[columns.get(form, [0, 1, 2])[position]] = text
    return [*lines, ",".join(values), last]


BAD_TOKENS = ["-1", "many", "1.5", "nan", "1e99", "99999999999999999999", "1000000001", ""]
BAD_TIMES = ["yesterday", "-1", "nan", "inf", "1e300", ""]
TOKENS = {"Azure": "ContextTokens", "BurstGPT": "Request tokens", "Mooncake": "input_length"}
OUTPUT = {"Azure": "GeneratedTokens", "BurstGPT": "Response tokens", "Mooncake": "output_length"}
JSON_TEXTS = {"many": '"many"', "yesterday": '"yesterday"', "nan": "NaN", "inf": "Infinity", "": "null"}


@pytest.mark.parametrize("name", ["log", "log.gz"])
@pytest.mark.parametrize(
    ("form", "position", "column", "text"),
    [
        *((form, 1, column, text) for form, column in TOKENS.items() for text in BAD_TOKENS),
        *((form, 2, column, text) for form, column in OUTPUT.items() for text in BAD_TOKENS),
        *((form, 0, column, text) for form, column in TIME.items() for text in BAD_TIMES),
        ("Azure", 0, "TIMESTAMP", "2023-13-16 18:17:06"),
        *(("plain", 1, "work", text) for text in BAD_TIMES),
        ("plain", 2, "agent", " "),
        *(("image models", 1, "exec_time_seconds", text) for text in BAD_TIMES),
        ("image models", 2, "checkpoint_model_version_id", " "),
    ],
)
def test_a_bad_field_is_named_by_file_line_column_and_text(written, name, form, position, column, text):
    texts = JSON_TEXTS if form == "Mooncake" else {}
    lines = field(form, position, texts.get(text, text))
    shown = texts.get(text, text).strip().strip('"')
    if form == "Mooncake" and len(text) > 3 and text[:2] == "1e":
        shown = "10{79}…"
    refused(
        written(*lines, name=name), f"line {len(lines) - 1}, field {column}: '{shown}' should be (a|the) "
    )


@every_format
def test_times_out_of_order_are_refused(written, form):
    lines = [*good_lines(form), LINES[form](*GOOD[1])]
    refused(
        written(*lines), f"line {len(lines)}, field {TIME[form]}: .* no earlier than .*; sort the log by time"
    )


@every_format
def test_the_first_of_several_bad_lines_is_named(written, form):
    lines = field(form, 1, "-7")
    worse = field(form, 0, '"y"')[-2]
    refused(written(*lines[:-1], worse, worse), f"line {len(lines) - 1}, .*'-7'")


@every_format
def test_a_blank_line_between_others_is_refused(written, form):
    lines = good_lines(form)
    for blank in ("", "  "):
        refused(written(*lines, blank, lines[-1]), f"line {len(lines) + 1}( is blank; delete it|: 1 fields)")
    refused(written("", *lines), "line 1 is blank; delete it")


@pytest.mark.parametrize("form", ["Azure", "BurstGPT", "plain"])
def test_lines_with_too_few_or_too_many_fields_are_refused(written, form):
    lines = good_lines(form)
    width = lines[0].count(",") + 1
    short, long = lines[-1].rpartition(",")[0], lines[-1] + ",1"
    refused(written(*lines, short, lines[-1]), f"line 5: {width - 1} fields where the header has {width}")
    refused(written(*lines, long, lines[-1]), f"line 5: {width + 1} fields where the header has {width}")
    # Here the number of commas in the file is right.
    refused(written(*lines, short, long), f"line 5: {width - 1} fields where the header has {width}")
    refused(written(*lines, '"' + lines[-1], lines[-1]), "line 5: cannot be read as CSV text")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{bad}", "line 4: not valid JSON"),
        ('{"timestamp": 9000, "input_le', "line 4: not valid JSON"),
        (2 * '{"timestamp": 9000, "input_length": 1, "output_length": 2} ', "line 4: not valid JSON"),
        ("[" * 100_000, "line 4: not valid JSON"),
        ("[1, 2, 3]", "line 4: not a JSON object"),
        ("7", "line 4: not a JSON object"),
        ("null", "line 4: not a JSON object"),
        (
            '{"timestamp": 9000, "input_length": 1}',
            "line 4, field output_length: missing; this object has time",
        ),
        (
            '{"timestamp": 9000, "input_length": true, "output_length": 1}',
            "field input_length: 'true' should",
        ),
        (
            '{"timestamp": 9000, "input_length": [5], "output_length": 1}',
            "line 4, field input_length: '.*5.*' sho",
        ),
    ],
)
def test_a_bad_line_of_json_is_refused(written, line, message):
    lines = good_lines("Mooncake")
    refused(written(*lines, line, lines[-1]), message)


@every_format
def test_bytes_that_are_not_text_are_named_by_line(tmp_path, form):
    path = tmp_path / "log"
    lines = good_lines(form)
    path.write_bytes("\n".join(lines).encode() + b"\n\xff" + lines[-1].encode() + b"\n")
    refused(path, f"line {len(lines) + 1}: bytes that are not UTF-8 text")
    path.write_bytes("\n".join(lines).encode("utf-16"))
    refused(path, "line 1: bytes that are not UTF-8 text")
    path.write_bytes(bytes(range(256)))
    refused(path, "line 1: the format is not known; .*this file has �+$")


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (
            "TIMESTAMP,Prompt,GeneratedTokens",
            r"no column 'ContextTokens'; .*this file has TIMESTAMP, Prompt, G",
        ),
        ("time_s,name", r"no column 'agent'; .*this file has time_s, name"),
        (
            "timestamp,input_length,output_length",
            r"the format is not known; .*this file has timestamp, input_l",
        ),
        (
            '{"timestamp": 0, "input_length": 1}',
            r"no key 'output_length'; .*this file has timestamp, input_length",
        ),
        ('[{"timestamp": 0}]', r"the format is not known; .*this file has \[\{"),
        ("<html>", r"the format is not known; .*this file has <html>"),
        ("x" * 1000, r"the format is not known; .*this file has x{200}…"),
        ('{"timestamp": 0', r"not valid JSON"),
        ('time_s,agent,"work', r"cannot be read as CSV text"),
        ("time_s,agent,agent", r"column 'agent' stands there twice"),
    ],
)
def test_another_format_is_refused_with_those_that_it_can_be(written, first, message):
    path = written(first, "1,2,3")
    refused(path, f"line 1: {message}")
    if "not known" in message:
        refused(path, "Azure: CSV .* BurstGPT: CSV .* Mooncake: .* plain: CSV .* time_s, agent, work .opt")


def test_the_formats_of_other_columns_are_not_listed(written):
    message = "formats with such names are Azure: CSV with the columns [^:;]*; this file has TIMESTAMP$"
    refused(written("TIMESTAMP", "1"), message)
    message = "such names are plain: [^:;]*; plain with tokens: [^:;]*; models: [^:;]*; this file has time_s$"
    refused(written("time_s", "1"), message)


def test_milliseconds_of_an_epoch_are_not_read_as_seconds(written):
    stamps = [1743294601788, 1743294602788, 1743294605788]
    log = read_log(written("time_s,agent", *(f"{stamp},nlp" for stamp in stamps)))
    assert log.time_s == pytest.approx([0, 1, 4]) and "as milliseconds, because" in log.notes[0]
    seconds = read_log(written("time_s,agent", *(f"{stamp // 1000},nlp" for stamp in stamps)))
    assert seconds.time_s == pytest.approx([0, 1, 4]) and not seconds.notes


MINUTES = ["2025-03-30T00:59Z", "2025-03-30 01:00", "2025-03-30T03:59+0200"]


@pytest.mark.parametrize("form", ["plain", "plain with tokens", "models", "BurstGPT"])
def test_dates_stand_for_seconds(written, form):
    dates = ["2025-03-30T00:59:58.500Z", "2025-03-30 03:00:01.500+02:00", "2025-03-30T01:00:07.500"]
    lines = [LINES[form](*request) for request in GOOD]
    dated = [",".join([date, *line.split(",")[1:]]) for date, line in zip(dates, lines, strict=True)]
    assert read_log(written(HEADERS[form], *dated)).time_s == pytest.approx([0, 3, 9])
    to_the_minute = [date + line[line.index(",") :] for date, line in zip(MINUTES, lines, strict=True)]
    assert read_log(written(HEADERS[form], *to_the_minute)).time_s == pytest.approx([0, 60, 3600])
    # A unit is that of numbers.
    assert read_log(written(HEADERS[form], *dated), "ms").time_s == pytest.approx([0, 3, 9])
    bad = ",".join(["30/03/2025 01:00", *lines[1].split(",")[1:]])
    refused(
        written(HEADERS[form], dated[0], bad),
        r"line 3, field .*: '30/03/2025 01:00' should be .* or a date such",
    )
    refused(
        written(HEADERS[form], lines[0], dated[1]),
        r"line 3, field .*: '2025-03-30 03:00:01.500\+02:00' should",
    )


@pytest.mark.parametrize(
    ("lines", "row", "text"),
    [
        (["2025-03-30T18:17:03Z", "", "2025-03-30T18:17:09Z"], 3, ""),
        (["2025-03-30T18:17:03Z", "2025-03-30T18:17:09Z", "1743358700"], 4, "1743358700"),
        (["1743358600", "2025-03-30T18:17:03Z", "2025-03-30T18:17:09Z"], 2, "1743358600"),
        (["1743358600", "1743358601", "2025-03-30T18:17:09Z"], 4, "2025-03-30T18:17:09Z"),
        (["2025-03-30T18:17:03Z", "2025-03-30", "2025-03-30T18:17:09Z"], 3, "2025-03-30"),
        (["1960-01-01T00:00:00Z", "2025-03-30T18:17:03Z"], 2, "1960-01-01T00:00:00Z"),
        (["1", "late", "later"], 3, "late"),
        (["", "1"], 2, ""),
    ],
)
def test_a_time_that_is_unlike_the_others_is_refused_by_its_line(written, lines, row, text):
    log = written("time_s,agent", *(f"{line},nlp" for line in lines))
    refused(log, f"line {row}, field time_s: '{text}' should be a time in seconds, .* as on the other lines")


@pytest.mark.parametrize(
    "date",
    [
        "2025-03-30T18:17:03.979123Z",
        "2025-03-30 18:17:03.979123",
        "2025-03-30T18:17:03.979123",
        "2025-03-30T20:17:03.979123+02:00",
        "2025-03-30 13:17:03.979123-0500",
        "2025-03-30t18:17:03.979123z",
    ],
)
def test_the_forms_of_dates(written, date):
    log = read_log(written("time_s,agent", f"{date},nlp", "2025-03-30T18:17:04.5Z,nlp"))
    assert log.time_s == pytest.approx([0, 0.520877], abs=1e-6)


def test_a_stamp_that_lies_years_away_is_refused_by_its_line(written):
    path = written("time_s,agent", "0,nlp", "1743294601,nlp", "1743294602,nlp")
    refused(path, r"line 3, field time_s: 20,177 days after the line before, .* delete what does not belong")


def test_columns_that_are_not_read_are_named(written):
    log = read_log(written("time_s,agent,Prompt_tokens,status", "0,nlp,5,ok", "1,nlp,7,ok"))
    assert log.notes == ("columns that are not read: Prompt_tokens, status",)


def test_a_log_of_sessions_is_told_who_plays_it(written):
    path = written("session,call,time_s,agent", "a,0,0,nlp", "a,1,5,nlp", "b,0,0,nlp")
    refused(path, "line 4, field time_s: .*sort the log by time; one of sessions, .* by scenario 'magentic'$")
    refused(written("time_s,agent", "5,nlp", "0,nlp"), "sort the log by time$")


def test_a_missing_file_a_folder_and_an_empty_file_are_told_apart(tmp_path):
    refused(tmp_path / "gone.csv", r"gone\.csv: no such file")
    refused(tmp_path, "is a folder; give the path of a request log in it")
    path = tmp_path / "empty.csv"
    for content in (b"", b"\n \n", b"\xef\xbb\xbf", gzip.compress(b"")):
        path.write_bytes(content)
        refused(path, r"empty\.csv: the file is empty; a log has a header")


@every_format
@pytest.mark.parametrize("requests", [0, 1, 2])
def test_a_log_that_spans_no_time_is_refused(written, form, requests):
    header = [HEADERS[form]] if HEADERS[form] else []
    lines = [*header, *requests * [LINES[form](*GOOD[0])]]
    # Without a header a log of no requests is no log at all.
    few = f"{requests} requests at one moment; a log " if requests else "the log has a header but no requests"
    refused(written(*lines), few if lines else "the file is empty")


def test_a_log_without_any_work_is_refused(written):
    refused(written("time_s,agent,work", "0,nlp,0", "1,nlp,0"), "field work: 0 in every line")


@every_format
@pytest.mark.parametrize("missing", [1, 8, 100, 2000])
def test_a_truncated_gzip_is_refused_as_such(written, form, missing):
    path = written(*log_lines(form, 500), name="log.gz")
    path.write_bytes(path.read_bytes()[:-missing])
    refused(path, r"log\.gz: the gzip file is truncated or damaged")


def test_a_damaged_gzip_is_refused_as_such(written):
    path = written(*log_lines("Azure", 500), name="log.gz")
    content = bytearray(path.read_bytes())
    content[1000:1010] = bytes(10)
    path.write_bytes(content)
    refused(path, r"log\.gz: the gzip file is truncated or damaged")


@every_format
def test_the_samples_name_only_agents_of_the_scenario(written, form):
    log = read_log(written(*log_lines(form, 100)))
    assert set(log.agent_names) == (set(AGENTS) if form in NAMED else set())


@pytest.mark.skipif(not REAL_LOGS.is_dir(), reason="the real logs are not here")
def test_the_real_azure_log_is_read_whole():
    log = read_log(REAL_LOGS / "AzureLLMInferenceTrace_code.csv")
    assert len(log.time_s) == 8819
    assert log.time_s[-1] == pytest.approx(0.95 * 3600, rel=0.01)
    per_second = np.bincount(log.time_s.astype(int))
    assert per_second.mean() == pytest.approx(2.57, abs=0.01)
    assert per_second.var() / per_second.mean() == pytest.approx(13.2, abs=0.2)
    assert log.work.mean() == pytest.approx(1)


@pytest.mark.skipif(not REAL_LOGS.is_dir(), reason="the real logs are not here")
def test_the_real_mooncake_log_is_read_whole_and_flows_evenly():
    log = read_log(REAL_LOGS / "mooncake_conversation.jsonl")
    assert len(log.time_s) == 12031 and log.work.mean() == pytest.approx(1)
    assert log.time_s[-1] == pytest.approx(0.98 * 3600, rel=0.01)
    # Without the spreading two seconds of three would be empty.
    assert np.mean(np.bincount(log.time_s.astype(int)) == 0) < 0.05

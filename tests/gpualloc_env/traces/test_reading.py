"""Logs are read from wherever they can come, in forked processes too, or refused with the remedy."""

import gzip
import os
import subprocess
import sys
import threading

import pytest

from gpualloc_env import TraceError
from gpualloc_env.traces import read_log
from gpualloc_env.traces.sessions import read_sessions

REQUESTS = "time_s,agent\n" + "".join(f"{k},nlp\n" for k in range(50))
SESSIONS = "session,call,time_s,agent,prompt_tokens,output_tokens\n" + "".join(
    f"s{k // 2},{k % 2},{k % 2},nlp,9,9\n" for k in range(50)
)
READERS = {"requests": (read_log, REQUESTS), "sessions": (read_sessions, SESSIONS)}

FORKED = """
import os, sys, threading
from pathlib import Path
import polars
from gpualloc_env.traces import CSV, Column, Format, read_log, register
from gpualloc_env.traces.sessions import read_sessions
whole = lambda texts: texts.cast(polars.Int64, strict=False)
kept = threading.Lock()
names = dict(time="t", prompt="p", output="o")
columns = {role: Column(name, whole, "a number") for role, name in names.items()}
register("mine", Format(CSV, columns))
reads = [lambda: read_log(Path("requests.csv")), lambda: read_log(Path("mine.csv"))]
reads += [lambda: read_sessions(Path("sessions.csv")), lambda: read_log(Path("absent.csv"))]
for read in reads[:3]:
    read()
if os.fork() == 0:
    for read in reads:
        try:
            print(len(read().time_s))
        except ValueError as error:
            print(error)
    register("bound", Format(CSV, {**columns, "time": Column("u", lambda texts: kept, "a number")}))
    try:
        read_log(Path("mine.csv"))
    except ValueError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_processes_read_logs_of_every_kind(tmp_path):
    for name, (_, text) in READERS.items():
        (tmp_path / f"{name}.csv").write_text(text)
    (tmp_path / "mine.csv").write_text("t,p,o\n" + "".join(f"{k},9,9\n" for k in range(50)))
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    *lengths, absent, unfit = run.stdout.splitlines()
    assert lengths == ["50"] * 3, run.stderr
    assert absent == "absent.csv: no such file; give the path of a request log"
    assert unfit.endswith("read it before the fork, or start processes with the method 'spawn'")


@pytest.mark.parametrize("kind", READERS)
def test_a_pipe_is_read(kind, tmp_path):
    read, text = READERS[kind]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(text))
    writer.start()
    assert len(read(pipe).time_s) == 50
    writer.join()


@pytest.mark.parametrize("kind", READERS)
def test_what_is_no_log_is_refused_by_what_it_is(kind, tmp_path):
    read, text = READERS[kind]
    with pytest.raises(TraceError, match="is a folder; give the path of a"):
        read(tmp_path)
    with pytest.raises(TraceError, match="no such file; give the path of a"):
        read(tmp_path / "absent")
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert len(read(packed).time_s) == 50
    for damaged in (
        packed.read_bytes()[:-20],
        packed.read_bytes().replace(b"\x03", b"\x04", 1)[:60] + b"?" * 90,
    ):
        packed.write_bytes(damaged)
        with pytest.raises(TraceError, match="truncated or damaged"):
            read(packed)


@pytest.mark.parametrize("kind", READERS)
def test_a_blank_first_line_and_an_empty_file_are_told_apart(kind, tmp_path):
    read, text = READERS[kind]
    path = tmp_path / "log.csv"
    path.write_text(f"\n{text}")
    with pytest.raises(TraceError, match="line 1 is blank; delete it"):
        read(path)
    path.write_text("\n")
    with pytest.raises(TraceError, match="the file is empty; a log"):
        read(path)

"""Formats of logs registered from outside the package."""

import polars
import pytest

from gpualloc_env import TraceError, load_scenario
from gpualloc_env.traces import CSV, FORMATS, Column, Format, read_log, register


def whole(texts):
    return texts.cast(polars.Int64, strict=False)


def columns(**names):
    return {role: Column(name, whole, "a whole number") for role, name in names.items()}


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.setattr("gpualloc_env.traces.formats.FORMATS", dict(FORMATS))


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "mine.csv"
    lines = [f"{1000 * k},{100 + k},{10 + k % 7},1" for k in range(200)]
    path.write_text("\n".join(["when_ms,asked,answered,region", *lines]) + "\n")
    return path


def test_a_log_of_a_registered_format_is_read(log):
    with pytest.raises(TraceError, match="the format is not known"):
        read_log(log)
    register("mine", Format(CSV, columns(time="when_ms", prompt="asked", output="answered"), unit_s=1e-3))
    assert read_log(log).time_s[:3].tolist() == [0, 1, 2]
    assert load_scenario("trace", trace=log, steps=2, split="all").windows.episodes > 1


def test_the_format_that_requires_most_is_taken(log):
    register("few", Format(CSV, columns(time="when_ms", prompt="asked", output="answered")))
    more = columns(time="when_ms", prompt="asked", output="answered", region="region")
    register("more", Format(CSV, more, unit_s=1e-3))
    assert read_log(log).time_s[1] == 1


@pytest.mark.parametrize(
    ("name", "names", "message"),
    [
        ("Azure", {"time": "t", "agent": "a"}, "format 'Azure' is registered already; give it another name"),
        ("mine", {"time": "t", "prompt": "p"}, "it needs time, and agent or both prompt and output"),
        ("mine", {"agent": "a"}, "it needs time"),
        ("mine", {"time": "time_s", "agent": "agent"}, "requires the same columns as 'plain'"),
    ],
)
def test_a_format_that_cannot_serve_is_refused(name, names, message):
    with pytest.raises(TraceError, match=message):
        register(name, Format(CSV, columns(**names)))

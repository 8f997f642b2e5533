"""Pages agree with the committed results, and a number that does not is found."""

import json
import re
import subprocess
import sys
import threading
import time
from graphlib import TopologicalSorter

import pytest

import training.publish as publish
from training.cli import run
from training.reporting.page_tables import behind
from training.reporting.published import filled, numbered

RESULTS = {
    "scenarios": {
        "calm": {
            "bound": {"mean": 0.25},
            "policies": {"cmu": {"objective": {"mean": 1.2345, "ci95": [1, 2]}, "metrics": {"slo": 0.987}}},
        }
    }
}


@pytest.fixture
def results(tmp_path):
    (tmp_path / "board.json").write_text(json.dumps(RESULTS))
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("9.999<!-- =board:calm/cmu/objective -->", "1.234<!-- =board:calm/cmu/objective -->"),
        ("1.2<!-- =-board:calm/cmu/objective -->", "−1.2<!-- =-board:calm/cmu/objective -->"),
        ("97 %<!-- =board:calm/cmu/slo --> in time", "99 %<!-- =board:calm/cmu/slo --> in time"),
        ("0.30<!-- =board:calm/bound -->", "0.25<!-- =board:calm/bound -->"),
        ("1.234 alone", "1.234 alone"),
    ],
)
def test_numbers_become_those_of_the_results_and_keep_their_decimals(results, old, new):
    assert numbered(old, results) == new


def test_a_number_from_nowhere_is_an_error(results):
    with pytest.raises(ValueError, match=r"docs/x\.md: no number board:calm/static/objective"):
        numbered("1<!-- =board:calm/static/objective -->", results, "docs/x.md")


def test_tables_stand_between_their_marks():
    page = "a\n<!-- t -->\n\nold\n| x |\n\n<!-- end of t -->\nb\n"
    assert filled(page, {"t": "| new |\n", "u": "| absent |"}) == page.replace("old\n| x |", "| new |")
    empty = "<!-- t -->\n<!-- end of t -->\n"
    assert filled(empty, {"t": "| new |\n"}) == "<!-- t -->\n| new |\n<!-- end of t -->\n"


def test_the_pages_agree_with_the_committed_results(capsys):
    run(publish.main, publish.PublishConfig, ["--check"])
    assert "agree with the results" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["README.md", "docs/universal.md"])
def test_a_page_says_how_far_the_file_for_all_traffic_is_behind_at_most(page):
    boards = json.loads((publish.RESULTS / "universal.json").read_text(encoding="utf-8"))["scenarios"]
    rows = [behind(name, "universal", board) for name, board in boards.items()]
    worst = max(float(row["in per cent"].replace("−", "-")) for row in rows)
    said = re.search(r"at most (\d\.\d) % behind", (publish.ROOT / page).read_text(encoding="utf-8"))
    assert said is not None and float(said[1]) == worst


def test_a_page_whose_number_differs_and_a_file_without_a_command_are_named(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    text = (publish.ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    page.write_text(text.replace("110.258", "110.259"), encoding="utf-8")
    monkeypatch.setattr(publish, "pages", lambda: [page])
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    monkeypatch.setattr(publish, "RESULTS", publish.RESULTS)
    monkeypatch.setattr(publish, "misplaced", lambda commands: iter(()))
    with pytest.raises(SystemExit) as stop:
        run(publish.main, publish.PublishConfig, ["--check"])
    error = capsys.readouterr().err
    line = text[: text.index("110.258")].count("\n") + 1
    assert stop.value.code == 1 and f"page.md, line {line}:" in error and "110.258" in error


def test_a_result_needs_the_one_command_that_makes_it(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("```sh\npython -m training.compare \\\n    --out runs/a\n```\n")
    monkeypatch.setattr(publish, "MADE", {"runs/a": {"x.png": "a.png"}, "runs/b": {}})
    monkeypatch.setattr(publish, "RESULTS", tmp_path / "training" / "results")
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    publish.RESULTS.mkdir(parents=True)
    (publish.RESULTS / "stray.png").touch()
    commands = publish.commands_by_out([page])
    assert commands == {"runs/a": {("python", "-m", "training.compare", "--out", "runs/a")}}
    assert list(publish.misplaced(commands)) == [
        "the pages show 0 different commands with --out runs/b; show the one that is meant",
        "no command is known to make training/results/stray.png",
        "training/results/a.png is missing",
    ]


def test_results_are_made_by_the_command_of_the_page(tmp_path, monkeypatch):
    made = tmp_path / "runs"
    made.mkdir()
    program = f"open({str(made / 'x.json')!r}, 'w').write('1')"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(publish, "MADE", {"runs": {"x.json": "kept.json"}})
    monkeypatch.setattr(publish, "RESULTS", tmp_path)
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    publish.make("runs", {"runs": (sys.executable, "-c", program)})
    assert (tmp_path / "kept.json").read_text() == "1"


COMMANDS = {
    "runs/board": ("python", "runs/tuned", "runs/twin/x.toml", "--out", "runs/board"),
    "runs/tuned": ("python", "runs/twin/x.toml", "--out", "runs/tuned"),
    "runs/twin": ("python", "--out", "runs/twin"),
    "runs/replay": ("python", "--trace", "log.csv", "--out", "runs/replay"),
}


def test_what_a_command_reads_is_made_first_where_it_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    needed = publish.needs(["runs/board"], COMMANDS)
    assert needed == {
        "runs/board": ["runs/tuned", "runs/twin"],
        "runs/twin": [],
        "runs/tuned": ["runs/twin"],
    }
    (tmp_path / "runs" / "tuned").mkdir(parents=True)
    assert publish.needs(["runs/board"], COMMANDS) == {"runs/board": ["runs/twin"], "runs/twin": []}
    (tmp_path / "log.csv").touch()
    assert publish.needs(["runs/replay"], COMMANDS) == {"runs/replay": []}


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_commands_run_after_those_that_they_need(tmp_path, monkeypatch, capsys, jobs):
    monkeypatch.chdir(tmp_path)
    events, made = [], publish.make
    running = threading.Semaphore(jobs)

    def make(out, commands):
        assert running.acquire(blocking=False), "more at a time than asked for"
        made(out, commands)
        events.append(out)
        running.release()

    monkeypatch.setattr(publish, "make", make)
    monkeypatch.setattr(publish, "MADE", {})
    commands = {out: (*words[:1], "-c", "", *words[1:]) for out, words in COMMANDS.items()}
    publish.make_all(publish.needs(["runs/board", "runs/twin"], commands), commands, jobs)
    assert events == ["runs/twin", "runs/tuned", "runs/board"]
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        f"{number} of 3" for number in (1, 2, 3)
    ]


def test_what_is_timed_runs_alone(monkeypatch):
    together, running = threading.Barrier(2), []

    def make(out, commands):
        running.append(out)
        if out.startswith("runs/curves/"):
            time.sleep(0.2)  # for others to begin, were they let
            assert running == [out]
        else:
            together.wait(timeout=60)  # both begin before one of them ends
        running.remove(out)

    monkeypatch.setattr(publish, "make", make)
    outs = ["runs/a", "runs/b", "runs/curves/c", "runs/curves/d", "runs/e", "runs/f"]
    commands = {out: ("python",) for out in outs}
    publish.make_all(publish.needs(outs, commands), commands, 2)
    assert not running


def test_one_that_fails_ends_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = {
        "runs/twin": ("python", "-c", "raise SystemExit(3)"),
        "runs/x": ("python", "-c", "", "runs/twin"),
    }
    with pytest.raises(subprocess.CalledProcessError):
        publish.make_all(publish.needs(["runs/x"], commands), commands, 2)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("runs/replay", r"log\.csv, which the command with --out runs/replay reads, is not there"),
        ("runs/unknown", "do not show one command with --out runs/unknown"),
    ],
)
def test_nothing_is_run_where_something_is_missing(tmp_path, monkeypatch, out, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        publish.needs(["runs/twin", out], COMMANDS)


def test_the_pages_say_how_to_make_all_that_publish_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "AzureLLMInferenceTrace_code.csv").touch()
    commands = {out: min(each) for out, each in publish.commands_by_out(publish.pages()).items()}
    needed = publish.needs(list(publish.MADE), commands)
    assert set(publish.MADE) < set(needed)
    ordered = list(TopologicalSorter(needed).static_order())
    assert ordered.index("runs/twin") < ordered.index("runs/ppo-residual-team-fluid")
    assert ordered.index("runs/ppo-residual-team-fluid-fine-tuned") < ordered.index("runs/transfer")

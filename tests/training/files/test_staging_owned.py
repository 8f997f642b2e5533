"""What stands in a folder of results after a command has written to it."""

import pytest

from training.files.staging import staged

OWNED = ("results.json", "figure.png", "runs")


def write(out, *names):
    with staged(out, OWNED, mark="results.json") as directory:
        for name in names:
            if "." in name:
                (directory / name).write_text("made")
            else:
                (directory / name).mkdir()


def test_nothing_older_of_the_commands_own_names_survives(tmp_path):
    write(tmp_path / "out", "results.json", "figure.png", "runs")
    (tmp_path / "out" / "notes.md").write_text("mine")
    write(tmp_path / "out", "results.json")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.json", "notes.md"}


@pytest.mark.parametrize(("first", "second"), [("runs", "runs"), ("figure.png", "figure.png")])
def test_results_are_replaced_by_those_of_the_same_name(tmp_path, first, second):
    write(tmp_path, "results.json", first)
    write(tmp_path, "results.json", second)
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", second}


def test_a_block_that_fails_leaves_the_earlier_results(tmp_path):
    write(tmp_path, "results.json", "figure.png")
    with pytest.raises(KeyboardInterrupt), staged(tmp_path, OWNED, mark="results.json") as directory:
        (directory / "results.json").write_text("half")
        raise KeyboardInterrupt
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "figure.png"}
    assert (tmp_path / "results.json").read_text() == "made"


def test_a_folder_without_earlier_results_is_refused(tmp_path):
    (tmp_path / "figure.png").write_text("mine")
    with pytest.raises(FileExistsError, match="holds no earlier results"):
        write(tmp_path, "results.json")
    assert (tmp_path / "figure.png").read_text() == "mine"

"""The file of constants, edited in place."""

import pytest

from baselines.tuned import TUNED, read_tuned
from training.learning.defaults import DEFAULTS
from training.search.tuned_file import Table, read_tables, write_tables

FILE = """\
# Two lines
# of header.

# found by hand
[steady.cmu]
# a note inside
a = 1.50   # as it was written
b = [ 1, 2 ]

# found by a search
[steady.other]
x = 1e-3
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "tuned.toml"
    file.write_text(FILE)
    return file


def test_all_but_the_table_that_changes_stays_byte_for_byte(path):
    write_tables(path, {("steady", "other"): Table("# found anew", {"x": 0.25, "y": 3})}, "# header\n")
    assert path.read_text() == FILE.replace("# found by a search", "# found anew").replace(
        "x = 1e-3\n", "x = 0.25\ny = 3\n"
    )


def test_a_table_between_others_keeps_the_remark_of_the_next(path):
    write_tables(path, {("steady", "cmu"): Table("# better", {"a": 2.0, "c": 7})}, "# header\n")
    tables = read_tables(path)
    assert tables["steady", "cmu"] == Table("# better", {"a": 2.0, "c": 7})
    assert tables["steady", "other"] == Table("# found by a search", {"x": 1e-3})
    assert "# a note inside" in path.read_text()


def test_a_remark_of_several_lines_is_replaced_as_a_whole(path):
    path.write_text(FILE.replace("# found by hand", "# set by hand, as\n# other values\n# were worse"))
    assert read_tables(path)["steady", "cmu"].remark == "# set by hand, as other values were worse"
    write_tables(path, {("steady", "cmu"): Table("# found by hand", {"a": 1.5, "b": [1, 2]})}, "# header\n")
    assert path.read_text() == FILE.replace("1.50", "1.5").replace("[ 1, 2 ]", "[1, 2]")


def test_a_new_table_stands_at_the_end_under_its_remark(path):
    write_tables(path, {("my.own scenario", "cmu"): Table("# mine", {"hidden": [3, 4]})}, "# header\n")
    assert path.read_text() == FILE + '\n# mine\n["my.own scenario".cmu]\nhidden = [3, 4]\n'


def test_a_file_that_is_not_there_begins_with_the_header(tmp_path):
    found = {("b", "x"): Table("# second", {"a": 1}), ("a", "x"): Table("# first", {"a": 1})}
    write_tables(tmp_path / "new.toml", found, "# header\n")
    text = (tmp_path / "new.toml").read_text()
    assert text == "# header\n\n# first\n[a.x]\na = 1\n\n# second\n[b.x]\na = 1\n"


@pytest.mark.parametrize("committed", [TUNED, DEFAULTS])
def test_the_committed_files_are_the_same_when_written_again(committed, tmp_path):
    copy = tmp_path / "copy.toml"
    copy.write_bytes(committed.read_bytes())
    tables = read_tables(copy)
    assert {key: dict(table.constants) for key, table in tables.items()} == {
        (scenario, policy): constants
        for scenario, policies in read_tuned(committed).items()
        for policy, constants in policies.items()
    }
    write_tables(copy, tables, "# another header\n")
    assert copy.read_bytes() == committed.read_bytes()

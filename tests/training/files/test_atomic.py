"""A file is replaced in full, or stays as it was."""

import os

import pytest

from training.files.atomic import check_writable, write_atomically


def test_content_replaces_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"former, and longer")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_cannot_be_finished_leaves_the_former_content_and_nothing_else(tmp_path, monkeypatch, error):
    def full(descriptor):
        raise error

    path = tmp_path / "file"
    path.write_bytes(b"former")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(type(error)) as raised:
        write_atomically(path, b"new")
    assert raised.value is error
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_refused_beforehand(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "file")
    assert not list(tmp_path.iterdir())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match=r"cannot write .*notes.txt/file: Not a directory; give another file"):
        check_writable(tmp_path / "notes.txt" / "file")

"""Whose a directory is, and what a run that does not start leaves in it."""

import subprocess
import sys

import pytest

from training.files import run_directory
from training.files.run_directory import CONFIG, TENSORBOARD, check_claim, claimed


def test_a_run_that_fails_at_once_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), claimed(tmp_path / "run", {"seed": 0}):
        (tmp_path / "run" / TENSORBOARD / "ppo").mkdir(parents=True)  # curves alone are nothing to go on from
        raise ZeroDivisionError
    assert not any(tmp_path.iterdir())


def test_a_run_that_has_written_something_stays(tmp_path):
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "run", {"seed": 0}):
        (tmp_path / "run" / "checkpoint.pt").write_bytes(b"")
        raise KeyboardInterrupt
    with claimed(tmp_path / "run", {"seed": 0, "progress": False}):
        pass
    with pytest.raises(ValueError, match="holds a run with seed = 0, asked for is 1"):
        check_claim(tmp_path / "run", {"seed": 1})


def test_one_process_holds_a_directory(tmp_path):
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from training.files.run_directory import claimed\n"
        "with claimed(Path(sys.argv[1]), {'seed': 0}):\n"
        "    print(1, flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"1\n"
        with (
            pytest.raises(ValueError, match="going on in another process"),
            claimed(tmp_path / "run", {"seed": 0}),
        ):
            pass
        assert (tmp_path / "run" / CONFIG).stat().st_size > 100
        other.kill()
    with claimed(tmp_path / "run", {"seed": 0}):
        pass


def test_of_two_first_starts_at_once_one_is_refused(tmp_path, monkeypatch):
    write, others = run_directory.write_config, []

    def and_meanwhile(path, settings):
        """As the first writes what it was asked for, the second starts."""
        if not others:
            others.append("the second")
            with (
                pytest.raises(ValueError, match="going on in another process"),
                claimed(path.parent, settings),
            ):
                pass
        write(path, settings)

    monkeypatch.setattr(run_directory, "write_config", and_meanwhile)
    with claimed(tmp_path / "run", {"seed": 0}):
        assert others and (tmp_path / "run" / CONFIG).is_file()


def test_a_check_makes_nothing(tmp_path):
    check_claim(tmp_path / "run", {"seed": 0})
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds no training run \(notes.txt\)"):
        check_claim(tmp_path, {"seed": 0})
    with pytest.raises(NotADirectoryError):
        check_claim(tmp_path / "notes.txt", {"seed": 0})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

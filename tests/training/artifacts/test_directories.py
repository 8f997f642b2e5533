"""Directories that are given as policies or places of a run and hold something else, or damaged files."""

import shutil
import zipfile
from pathlib import Path

import pytest
from support.trained_run import TRAINED

import training.train
from gpualloc_env.scenario.loading import load_scenario
from training.artifacts.policies import load_policies, load_policy, named, policy_file, seed_runs
from training.artifacts.training_record import read_record
from training.cli import call
from training.compare import CompareConfig
from training.compare import main as compare
from training.train import TrainConfig
from training.train import main as train


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """The directory of a comparison on serverless."""
    out = tmp_path_factory.mktemp("compared") / "mix-serverless"
    compare(CompareConfig(policies=("static",), steps=5, episodes=2, out=out))
    return out


def refusal(main, config, capsys):
    """The one line with which a command refuses what it is asked."""
    with pytest.raises(SystemExit) as stopped:
        call(main, config)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and error.startswith("error: ")
    return error


def test_a_comparison_is_no_policy(comparison, tmp_path, capsys):
    config = CompareConfig(policies=(str(comparison), "adaptive"), episodes=2, out=tmp_path / "out")
    error = refusal(compare, config, capsys)
    assert f"{comparison} holds a comparison and no training run; give a directory" in error
    assert not (tmp_path / "out").exists()
    assert list(named([str(comparison)], "serverless")) == ["mix"]


def test_a_comparison_is_no_run_to_continue(comparison, capsys):
    error = refusal(train, TrainConfig(out=comparison), capsys)
    assert f"{comparison} holds something else than a training run" in error
    assert "its config.json has policies, which this command has not; give another --out" in error
    error = refusal(train, TrainConfig(seeds=2, out=comparison), capsys)
    assert "something else; give another --out for 2 seeds" in error


def truncated(path):
    """Leave half of a file, as a full disk does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_a_flipped_byte(path):
    """Change one byte in the middle of a file."""
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 255
    path.write_bytes(contents)


def of_other_contents(path):
    """Another archive in the place of one."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "mine")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(("model.zip", damage) for damage in (truncated, of_a_flipped_byte, of_other_contents)),
        ("config.json", truncated),
        ("transform.json", truncated),
    ],
)
def test_a_damaged_file_of_a_run_is_named_with_the_remedy(name, damage, trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    damage(run / name)
    with pytest.raises(ValueError, match=r" is damaged or of no training run \(.+\); ") as refused:
        load_policy(str(run), load_scenario())
    message = str(refused.value)
    assert message.startswith(f"{run / name} is damaged") and "\n" not in message
    assert message.endswith(f"delete {run} and train the run again")


@pytest.mark.parametrize("damage", [truncated, of_a_flipped_byte])
def test_a_damaged_checkpoint_is_refused_before_anything_is_played(damage, trained_run, tmp_path, capsys):
    out = shutil.copytree(trained_run, tmp_path / "run")
    config = TrainConfig(**TRAINED, out=out)
    (out / "result.json").unlink()
    damage(out / "checkpoint.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.train, "baseline_objectives", pytest.fail)
        error = refusal(train, config, capsys)
    assert f"{out / 'checkpoint.pt'} is damaged (" in error
    assert "delete it, and the run begins anew" in error


def test_a_broken_configuration_is_named_where_training_would_go_on(trained_run, tmp_path, capsys):
    out = shutil.copytree(trained_run, tmp_path / "run")
    (out / "config.json").write_text("{")
    error = refusal(train, TrainConfig(**TRAINED, out=out), capsys)
    assert f"{out / 'config.json'} is damaged" in error and f"delete {out} and train" in error


def test_a_directory_of_one_file_of_another_name_is_refused_with_its_path(exported, tmp_path):
    shutil.copy(exported["npz"], tmp_path / "mine.npz")
    with pytest.raises(ValueError, match="holds an exported allocator and no training run") as refused:
        load_policies(str(tmp_path), load_scenario())
    assert str(refused.value).endswith(f"give a file of it: {tmp_path / 'mine.npz'}")
    shutil.copy(exported["npz"], tmp_path / "yours.npz")
    with pytest.raises(ValueError, match="holds 2 exported allocators and no training run"):
        load_policies(str(tmp_path), load_scenario())


def test_exported_files_beside_the_runs_of_seeds_are_no_runs(trained_run, exported, tmp_path):
    for seed in (0, 1):
        shutil.copytree(trained_run, tmp_path / f"seed-{seed}")
        shutil.copy(exported["npz"], tmp_path / f"seed-{seed}.npz")
    assert seed_runs(tmp_path) == [tmp_path / "seed-0", tmp_path / "seed-1"]
    assert policy_file(str(tmp_path)) == tmp_path / "seed-0"
    assert len(load_policies(str(tmp_path), load_scenario())) == 2
    assert read_record(tmp_path) == read_record(trained_run)


def test_exported_files_of_seeds_are_no_runs(exported, tmp_path, monkeypatch):
    # Python 3.10 ignores the slash at the end of a pattern.
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda path, pattern: glob(path, pattern.rstrip("/")))
    shutil.copy(exported["npz"], tmp_path / "seed-0.npz")
    assert seed_runs(tmp_path) == [] and read_record(tmp_path) is None

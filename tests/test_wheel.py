"""What an installed package does, outside the checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest
from support.log_samples import log_lines, write_log
from support.pages import blocks
from support.places import ROOT

import gpualloc_env

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with the wheel alone, and with the libraries of this one beside it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env")
    python = folder / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True)
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    # A path in a .pth file is searched, but what stands in its own .pth files, a checkout, is not.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return wheel, python


def told(installed, *command, cwd):
    """What a program of the environment says, in a folder that is not the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = [installed[1].parent / command[0], *map(str, command[1:])]
    done = subprocess.run(program, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_one_name_at_the_top_and_all_data(installed):
    names = zipfile.ZipFile(installed[0]).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"gpualloc_env"}
    kept = {path.relative_to(ROOT) for path in (ROOT / "training" / "pretrained").rglob("*.npz")}
    assert kept and {f"gpualloc_env/{path.as_posix()}" for path in kept} <= set(names)
    assert {"gpualloc_env/py.typed", "gpualloc_env/baselines/tuned.toml"} <= set(names)


def test_neither_baselines_nor_training_can_be_imported_by_these_names(installed, tmp_path):
    program = (
        "import importlib.util, gpualloc_env\n"
        "print([importlib.util.find_spec(name) for name in ('baselines', 'training')], gpualloc_env.__file__)"
    )
    said = told(installed, "python", "-c", program, cwd=tmp_path)
    assert said.startswith("[None, None]") and str(ROOT) not in said


def test_the_loops_of_the_readme_run(installed, tmp_path):
    (loop,), (learning,) = (blocks(ROOT / "README.md", language) for language in ("python", "py"))
    short = learning.replace("100_000", "1024")
    assert short != learning
    said = told(installed, "python", "-c", loop + short, cwd=tmp_path).split()
    assert len(said) == 2 and all(float(number) > 0 for number in said)


def test_the_command_explains_itself_and_compares_baselines_with_a_pretrained_allocator(installed, tmp_path):
    assert "compare          Compare allocators" in told(installed, "gpualloc", "--help", cwd=tmp_path)
    assert told(installed, "gpualloc", "--version", cwd=tmp_path) == f"gpualloc {gpualloc_env.__version__}\n"
    explained = told(installed, "gpualloc", "compare", "--help", cwd=tmp_path)
    assert "usage: gpualloc compare" in explained and "at least 1; default: 100" in explained
    policies = ["adaptive", "receding-horizon", "ppo-residual-serverless"]
    words = ["--policies", *policies, "--episodes", 2, "--steps", 20, "--out", tmp_path / "out"]
    told(installed, "gpualloc", "compare", *words, cwd=tmp_path)
    summary = (tmp_path / "out" / "summary.json").read_text(encoding="utf-8")
    assert '"adaptive"' in summary and '"ppo-residual' in summary and '"learned"' in summary


def test_the_command_plans_for_a_log(installed, tmp_path):
    log = write_log(tmp_path / "log.csv", log_lines("plain", 600))
    words = ["--policies", "static", "--sweep", 1, "--out", tmp_path / "plan"]
    said = told(installed, "gpualloc", "plan", log, *words, cwd=tmp_path)
    assert "Take static on" in said
    assert "gpualloc train" in (tmp_path / "plan" / "plan.html").read_text(encoding="utf-8")


def test_processes_of_a_command_find_what_they_work_with(installed, tmp_path):
    words = ["--scenarios", "steady", "--policies", "adaptive", "static", "--episodes", 2]
    said = told(installed, "gpualloc", "leaderboard", *words, "--out", tmp_path / "board", cwd=tmp_path)
    assert "adaptive" in said


def test_every_command_of_the_readme_but_publish_explains_itself(installed, tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = {*re.findall(r"python -m training\.(\w+)", readme)} - {"publish"}
    listed = told(installed, "gpualloc", "--help", cwd=tmp_path)
    assert named == {*re.findall(r"^  (\w+)", listed, re.MULTILINE)}
    for name in named:
        assert f"usage: gpualloc {name}" in told(installed, "gpualloc", name, "--help", cwd=tmp_path)


def test_commands_whose_names_have_two_words_and_those_that_read_data_of_the_package_run(installed, tmp_path):
    told(installed, "gpualloc", "burst_figure", "--policies", "static", "cmu", "--steps", 30, cwd=tmp_path)
    told(installed, "gpualloc", "catalogue", "--out", tmp_path / "catalogue", cwd=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"burst.png", "burst.svg", "catalogue"}

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import tyro
from support.pages import FENCE, blocks

import gpualloc_env
from gpualloc_env import load_scenario
from gpualloc_env.metrics import BUILT_IN
from gpualloc_env.wrappers import SimplexAction

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "api").glob("*.md"))]
COMMAND = re.compile(r"python -m training\.\w+.*")


def prose(page):
    """The text of a page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))


def commands(page):
    """Every command line of a page, from blocks and from the text."""
    fences = [content for _, _, content in FENCE.findall(page.read_text(encoding="utf-8"))]
    inline = re.findall(r"`([^`\n]+)`", FENCE.sub("", page.read_text(encoding="utf-8")))
    lines = "\n".join([*fences, *inline]).replace("\\\n", " ").split("\n")
    return [match.group() for line in lines if (match := COMMAND.match(line.strip()))]


COMMANDS = sorted({(page.name, command) for page in PAGES for command in commands(page)})


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_parse(page, command):
    module_name, *arguments = shlex.split(command)[2:]
    module = importlib.import_module(module_name)
    (config,) = (
        each
        for name, each in vars(module).items()
        if name.endswith("Config") and each.__module__ == module_name
    )
    # A command that is only named says nothing about its options.
    if arguments:
        assert isinstance(tyro.cli(config, args=arguments), config)


def test_the_readme_lists_every_command():
    listed = {command.split()[2] for command in commands(README)}
    entry = 'if __name__ == "__main__":'
    files = [path for path in (ROOT / "training").glob("*.py") if entry in path.read_text(encoding="utf-8")]
    assert listed == {f"training.{path.stem}" for path in files}


def test_the_readme_is_short_and_names_the_two_commands():
    text = README.read_text(encoding="utf-8")
    assert len(text) <= 8000
    assert "`make demo`" in text and "`make test`" in text


def test_the_readme_loop_runs(capsys):
    (loop,) = blocks(README, "python")
    exec(compile(loop, "README.md", "exec"), {})
    objective, p95 = map(float, capsys.readouterr().out.split())
    assert 0 < objective < p95


@pytest.mark.slow
def test_the_readme_learner_is_better_than_algorithm_1_on_held_out_episodes():
    (loop,), (learning,) = (blocks(README, language) for language in ("python", "py"))
    names = {}
    exec(compile(loop + learning, "README.md", "exec"), names)
    env, model, learned = SimplexAction(gym.make("GPUAlloc-v0")), names["model"], []
    for seed in range(10000, 10020):
        observation, _ = env.reset(seed=seed)
        truncated = False
        while not truncated:
            action, _ = model.predict(observation, deterministic=True)
            observation, _, _, truncated, info = env.step(action)
        learned.append(info["objective"])
    assert np.mean(learned) < gpualloc_env.evaluate(gpualloc_env.policy("adaptive"), episodes=20)["objective"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_have_alt_text_and_exist(page):
    text = page.read_text(encoding="utf-8")
    figures = [(alt, path) for alt, path in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", text)]
    for _, info, content in FENCE.findall(text):
        if info.startswith("{figure}"):
            alt = re.search(r"^:alt:\s*(.+)$", content, re.MULTILINE)
            figures.append((alt.group(1) if alt else "", info.removeprefix("{figure}").strip()))
    for alt, path in figures:
        assert len(alt.split()) >= 5, f"{path} needs a text that says what it shows, got {alt!r}"
        assert (page.parent / path).is_file(), path


def anchors(page):
    """What a link can point to in a page: slugs of its headings, and named targets."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+\s+(.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
    return slugs | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_internal_links_resolve(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    for target in targets:
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def test_the_front_page_leads_to_every_page():
    contents = "\n".join(blocks(ROOT / "docs" / "index.md", "{toctree}")).split("\n")
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages | {"api/index"} == {line for line in contents if line and not line.startswith(":")}


def test_the_example_scenario_loads(tmp_path):
    (example,) = blocks(ROOT / "docs" / "your-own-scenario.md", "toml")
    path = tmp_path / "my-scenario.toml"
    path.write_text(example, encoding="utf-8")
    scenario = load_scenario(path)
    assert scenario.agent_names == ("router", "writer")
    assert scenario.platform.slice == pytest.approx(1 / 7)


def test_the_keys_of_a_scenario_are_all_described():
    text = (ROOT / "docs" / "your-own-scenario.md").read_text(encoding="utf-8")
    for name in ("Agent", "Platform", "Traffic", "Trace", "Objective"):
        for key in getattr(gpualloc_env, name).model_fields:
            assert f"`{key}`" in text, f"{name}.{key}"


def test_the_columns_of_the_observation_are_all_described():
    text = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", text[text.index("| column |") :].split("\n\n")[0], re.MULTILINE)
    assert tuple(rows) == gpualloc_env.OBSERVATION_FEATURES
    assert f"Box(0, 1, (N, {len(rows)}), float32)" in text


def test_the_arguments_of_an_environment_are_all_described():
    text = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", text[text.index("| argument |") :].split("\n\n")[0], re.MULTILINE)
    changes = (field.name for field in fields(gpualloc_env.Overrides))
    assert set(rows) == {"scenario", *changes, "episode_metrics", "render_mode"}


def test_the_metrics_of_an_episode_are_all_described():
    text = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    table = text[text.index("| metric |") :].split("\n\n")[0]
    assert [name for name in BUILT_IN if f"`{name}`" not in table] == []


def test_the_code_of_the_deployment_page_runs(tmp_path, monkeypatch, capsys):
    import gymnasium as gym

    pretrained = "training/pretrained/ppo-residual-serverless/seed-0.npz"
    shutil.copy(ROOT / pretrained, tmp_path / "allocator.npz")
    (tmp_path / "training").symlink_to(ROOT / "training")
    monkeypatch.chdir(tmp_path)
    env = gym.make("GPUAlloc-v0")
    observation, _ = env.reset(seed=0)
    names = {"observation": observation, "view": env.unwrapped.view, "live_shares": np.full(4, 0.25)}
    for block in blocks(ROOT / "docs" / "deployment.md", "python"):
        exec(compile(block, "deployment.md", "exec"), names)
    assert names["other"].agents == ("router", "writer")
    assert len((tmp_path / "shadow.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    assert capsys.readouterr().out.startswith("2 ")


EXTENSIONS = {
    "scenario": ('register(Scenario(name="calm"', "assert gpualloc_env.load_scenario('calm').steps == 120"),
    "policy": ("baselines.register(", "assert metrics_of('longest-queue')['objective'] > 0"),
    "metric": ("metrics.register(", "assert metrics_of('static')['longest_queue_requests'] > 0"),
    "log format": (
        'register("gateway"',
        "assert FORMATS['gateway'].required == ['ts', 'tokens_in', 'tokens_out']",
    ),
}
PLAY = """
import gymnasium as gym
import gpualloc_env
from baselines import POLICIES

def metrics_of(policy):
    env = gym.make("GPUAlloc-v0", steps=20)
    env.reset(seed=0)
    truncated = False
    while not truncated:
        truncated = env.step(POLICIES[policy](env.unwrapped.view))[3]
    return env.unwrapped.episode_metrics()
"""


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_extensions_from_outside_work(extension):
    mark, check = EXTENSIONS[extension]
    (code,) = [block for block in blocks(ROOT / "docs" / "extend.md", "python") if mark in block]
    # A process of its own: what is registered stays registered.
    script = "\n".join([code, PLAY, check])
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_diffs_fit_the_code():
    text = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    sections = [
        section
        for _, info, content in FENCE.findall(text)
        if info == "diff"
        for section in re.split(r"^@@ ", content, flags=re.MULTILINE)[1:]
    ]
    assert len(sections) >= 8
    for section in sections:
        heading, *lines = section.split("\n")
        name = heading.removesuffix(" @@")
        kept = [line[1:].strip() for line in lines if line and line[0] in " -"]
        if not kept:
            continue  # a new file, or an addition to a list
        code = {line.strip() for line in (ROOT / name).read_text(encoding="utf-8").split("\n")}
        absent = [line for line in kept if line not in code and "..." not in line]
        assert not absent, f"{name} has no line {absent[0]!r}"


def test_the_code_of_the_tensorboard_page_hands_over_every_number(tmp_path):
    shutil.copy(ROOT / "training" / "results" / "serverless.json", tmp_path / "summary.json")
    _, code = blocks(ROOT / "docs" / "tensorboard.md", "python")
    names, logged = {}, {}
    exec(compile(code, "tensorboard.md", "exec"), names)
    names["log_comparison"](tmp_path, logged.update)
    assert logged["serverless/adaptive/objective"] > logged["serverless/receding-horizon/objective"] > 0
    assert {name.split("/")[1] for name in logged} >= {"static", "ppo-residual"}

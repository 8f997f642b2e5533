import ast
import graphlib
import subprocess
import sys
from functools import lru_cache

import pytest
import tomlkit
from support.places import ROOT

FOLDERS = ("gpualloc_env", "baselines", "training")


def modules(folder):
    """Files of a package by the names of their modules."""
    found = {
        ".".join((folder, *path.relative_to(ROOT / folder).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    assert len(found) > 10
    return found


@lru_cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@lru_cache
def imports(path):
    """Names of the modules that a file imports when it runs; those for the type checker are left out."""
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports out in full"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(parsed(path))
    return found


def within(names, folder):
    return {name for name in names if name == folder or name.startswith(f"{folder}.")}


def python(program):
    """What a new interpreter says."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_the_package_imports_neither_torch_nor_the_folders_above_it():
    program = (
        "import sys, pkgutil, importlib, gpualloc_env\n"
        "for module in pkgutil.walk_packages(gpualloc_env.__path__, 'gpualloc_env.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(*sys.modules)"
    )
    names = set(python(program).split())
    assert set(modules("gpualloc_env")) <= names
    loaded = {name.partition(".")[0] for name in names}
    assert not loaded & {"torch", "stable_baselines3", "tensorboard", "matplotlib", "baselines", "training"}
    assert not loaded & {"onnx", "onnxruntime"}


def test_importing_the_package_loads_only_gymnasium_until_a_name_is_asked_for():
    program = (
        "import sys, gpualloc_env\n"
        "print(*sys.modules)\n"
        "assert set(gpualloc_env.__all__) <= set(dir(gpualloc_env))\n"
        "assert all(hasattr(gpualloc_env, name) for name in gpualloc_env.__all__)\n"
        "assert not hasattr(gpualloc_env, 'Platfrom')\n"
    )
    assert not {"numba", "pydantic", "polars", "gpualloc_env.batch"} & set(python(program).split())


def test_the_list_of_commands_loads_nothing_of_what_they_play_with():
    program = "import sys, training.commands as commands\ncommands.main(['--help'])\nprint(*sys.modules)"
    assert not {"numba", "gymnasium", "baselines", "gpualloc_env"} & set(
        python(program).splitlines()[-1].split()
    )


@pytest.mark.parametrize(
    ("name", "late"),
    [
        ("load_scenario", {"polars", "gpualloc_env.batch", "gpualloc_env.allocator"}),
        ("Scenario", {"polars", "gpualloc_env.batch", "gpualloc_env.allocator"}),
        ("Batch", {"polars", "gpualloc_env.env", "gpualloc_env.allocator"}),
        ("Allocator", {"polars", "gpualloc_env.env", "gpualloc_env.batch"}),
    ],
)
def test_a_name_of_the_package_loads_what_it_needs_alone(name, late):
    loaded = set(python(f"import sys\nfrom gpualloc_env import {name}\nprint(*sys.modules)").split())
    assert "gpualloc_env.scenario" in loaded and not late & loaded


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("gpualloc_env", ("baselines", "training", "torch", "stable_baselines3", "tests")),
        ("baselines", ("training", "torch", "stable_baselines3", "tests")),
        ("training", ("tests",)),
    ],
)
def test_imports_run_downward_only(folder, forbidden):
    for path in modules(folder).values():
        for name in forbidden:
            assert not within(imports(path), name), f"{path} imports {name}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_module_imports_itself_by_a_detour(folder):
    known = modules(folder)
    graph = {name: within(imports(path), folder) & set(known) - {name} for name, path in known.items()}
    # `from package import module` names the package too, whose own file only gathers its modules.
    order = graphlib.TopologicalSorter({name: parts - {folder} for name, parts in graph.items()})
    assert set(order.static_order()) >= set(known)  # which a detour makes impossible


def test_the_folders_of_training_form_layers():
    """No folder imports another one that imports it, by whatever detour; commands stand above them all."""
    known, graph = modules("training"), {}
    for name, path in known.items():
        folder = name.split(".")[1] if path.parent != ROOT / "training" else None
        others = {other.split(".")[1] for other in within(imports(path), "training") if "." in other}
        folders = {other for other in others if (ROOT / "training" / other).is_dir()}
        if folder is not None:
            graph.setdefault(folder, set()).update(folders - {folder})
            # Only what every command says at an error, and how it declares its options, is shared.
            commands = others - folders - {"cli", "limits"}
            assert not commands, f"{path} imports {commands}, which stand above it"
    assert set(graph) == {
        path.name for path in (ROOT / "training").iterdir() if (path / "__init__.py").is_file()
    }
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(graph)


def test_only_the_batch_steps_the_simulator():
    def uses(path):
        names = {f"gpualloc_env.simulation.fluid.{name}" for name in ("step", "reset")}
        calls = {ast.unparse(node) for node in ast.walk(parsed(path)) if isinstance(node, ast.Attribute)}
        return names & imports(path) or calls & {"fluid.step", "fluid.reset"}

    users = {name for folder in FOLDERS for name, path in modules(folder).items() if uses(path)}
    assert users == {"gpualloc_env.batch"}


LONGEST, MOST_ARGUMENTS = 60, 8
AS_LONG_AS_THE_PHYSICS = {("gpualloc_env.simulation.fluid", "step")}


def functions(folder):
    """Module, function and, of its positional arguments, those that a caller gives."""
    for name, path in modules(folder).items():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
                yield name, node, given[1:] if given[:1] in (["self"], ["cls"]) else given


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_function_is_longer_than_a_page(folder):
    long = {
        (name, node.name): node.end_lineno - node.lineno + 1
        for name, node, _ in functions(folder)
        if node.end_lineno - node.lineno >= LONGEST and (name, node.name) not in AS_LONG_AS_THE_PHYSICS
    }
    assert not long


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_function_takes_more_arguments_by_position_than_a_reader_can_tell_apart(folder):
    many = {
        (name, node.name): len(given)
        for name, node, given in functions(folder)
        if len(given) > MOST_ARGUMENTS
    }
    assert not many


def test_nothing_draws_from_a_global_random_state():
    for folder in FOLDERS:
        for path in modules(folder).values():
            assert "random" not in imports(path), path
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("np.random."):
                    # A checkpoint keeps the state from which stable-baselines3 draws.
                    kept = {"get_state", "set_state"} if path.name == "checkpoint.py" else set()
                    assert node.attr in {"default_rng", "Generator", "SeedSequence", "PCG64"} | kept, path


def test_imports_are_checked_for_the_oldest_python_that_is_supported():
    project = tomlkit.parse((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    checked = (ROOT / ".ci" / "oldest_python.json").read_text(encoding="utf-8")
    assert f'"pythonVersion": "{project["requires-python"].removeprefix(">=")}"' in checked

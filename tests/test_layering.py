import ast
import graphlib
import subprocess
import sys

import pytest
from support.places import ROOT

FOLDERS = ("gpualloc_env", "baselines", "training")


def modules(folder):
    return {
        ".".join((folder, *path.relative_to(ROOT / folder).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


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

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def within(names, folder):
    return {name for name in names if name == folder or name.startswith(f"{folder}.")}


def test_the_package_imports_neither_torch_nor_the_folders_above_it():
    program = (
        "import sys, pkgutil, importlib, gpualloc_env\n"
        "for module in pkgutil.iter_modules(gpualloc_env.__path__, 'gpualloc_env.'):\n"
        "    if module.name != 'gpualloc_env.onnx_graph':  # which is loaded with the first .onnx\n"
        "        importlib.import_module(module.name)\n"
        "print(*sys.modules)"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert "gpualloc_env" in loaded
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
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not {"numba", "pydantic", "polars", "gpualloc_env.batch"} & set(run.stdout.split())


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


def test_only_the_batch_steps_the_simulator():
    users = {
        name
        for folder in FOLDERS
        for name, path in modules(folder).items()
        if {"gpualloc_env.simulator.step", "gpualloc_env.simulator.reset"} & imports(path)
        or "simulator.step" in path.read_text(encoding="utf-8")
    }
    assert users == {"gpualloc_env.batch"}


def test_nothing_draws_from_a_global_random_state():
    for folder in FOLDERS:
        for path in modules(folder).values():
            assert "random" not in imports(path), path
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("np.random."):
                    # A checkpoint keeps the state from which stable-baselines3 draws.
                    kept = {"get_state", "set_state"} if path.name == "checkpoint.py" else set()
                    assert node.attr in {"default_rng", "Generator", "SeedSequence", "PCG64"} | kept, path

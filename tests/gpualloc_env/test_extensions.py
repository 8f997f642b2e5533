"""Modules of a user that cannot be imported."""

import sys

import pytest

from gpualloc_env.extensions import VARIABLE, import_extensions, module_of_user


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


@pytest.mark.parametrize("name", ["no_such_module", "no_such_package.module"])
def test_a_module_that_is_not_there_is_named(folder, name):
    with pytest.raises(ValueError, match=f"^policies: cannot import module '{name}', neither from"):
        module_of_user(name, "policies")


def test_what_a_module_lacks_is_not_taken_for_the_module(folder):
    (folder / "lacking_policy.py").write_text("import lacking\n")
    with pytest.raises(ModuleNotFoundError, match="No module named 'lacking'"):
        module_of_user("lacking_policy", "policies")


@pytest.mark.parametrize("name", ["../own/my_ext", "./my_ext", "own/my_ext"])
def test_a_path_in_the_place_of_a_module_is_refused(name, monkeypatch):
    monkeypatch.setenv(VARIABLE, name)
    with pytest.raises(
        ValueError, match=f"^{VARIABLE}: '{name}' is a path; give the name of a module, such as my"
    ):
        import_extensions()

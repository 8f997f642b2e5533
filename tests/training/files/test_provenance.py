"""What made a result."""

import re
import subprocess

from support.places import ROOT

from training.files import provenance


def test_the_commit_is_that_of_the_packages_own_checkout():
    assert provenance.CHECKOUT == ROOT
    assert not (ROOT / ".git").exists() or re.fullmatch("[0-9a-f]{40}(-dirty)?", provenance.git_commit())


def test_a_package_installed_in_another_project_has_no_commit(tmp_path, monkeypatch):
    git = ["git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", "-C", str(tmp_path)]
    for command in (["init"], ["commit", "--allow-empty", "--message", "Theirs"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    installed = tmp_path / "site-packages" / "gpualloc_env"
    installed.mkdir(parents=True)
    monkeypatch.setattr(provenance, "CHECKOUT", installed)
    assert provenance.git_commit() is None

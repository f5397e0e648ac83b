"""The code of a run can be restored from its commit and its patch."""

import subprocess

import pytest

from training.profiling import environment


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout with a file that differs, and one that git does not know."""
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    file = tmp_path / "code.py"
    file.write_text("a = 1\n")
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for words in (["init"], ["add", "."], [*author, "commit", "-m", "First"]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)
    file.write_text("a = 2\n# \xdf\n")
    (tmp_path / "notes.txt").write_text("a secret")
    return tmp_path


def test_the_patch_of_a_checkout_restores_its_code(checkout):
    assert environment.commit().endswith("+")
    patch = environment.uncommitted_changes()
    assert "secret" not in patch
    git = ("git", "-C", checkout)
    subprocess.run([*git, "checkout", "code.py"], check=True, capture_output=True)
    assert environment.uncommitted_changes() == ""
    subprocess.run([*git, "apply", "-"], input=patch.encode(), check=True)
    assert (checkout / "code.py").read_text() == "a = 2\n# \xdf\n"


def test_a_long_patch_is_cut_at_a_line(checkout, monkeypatch):
    whole = environment.uncommitted_changes()
    monkeypatch.setattr(environment, "MAX_PATCH_BYTES", 60)
    *lines, note = environment.uncommitted_changes().splitlines()
    assert lines == whole.splitlines()[: len(lines)]
    assert "cut: the patch has" in note


def test_a_folder_outside_git_has_no_patch(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.uncommitted_changes() == environment.commit() == ""

"""A run directory is only ever that of one run."""

import json
import os
from pathlib import Path

import pytest

from sweeps.storage import Storage
from training.run_dir import RunDirectory
from utils.errors import UserError


def test_a_run_directory_of_another_config_is_refused_key_by_key(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    here = {"seed": 1, "optim": {"lr": 0.1}, "data": {"dir": "a"}}
    directory.check_config(here)
    directory.write_json("config.json", here)
    directory.check_config({**here, "data": {"dir": "elsewhere"}})
    with pytest.raises(UserError, match=r"optim\.lr is 0\.1 there and 0\.2 here"):
        directory.check_config({**here, "optim": {"lr": 0.2}})


def test_a_folder_of_other_things_is_not_written_into(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="not a run directory"):
        RunDirectory(tmp_path).check_config({})
    with pytest.raises(UserError, match="no run in"):
        RunDirectory(tmp_path).read_config()


def test_folders_of_the_data_are_found_after_a_move(tmp_path, monkeypatch):
    def folders(path):
        return RunDirectory(path).read_config()["data"]

    monkeypatch.chdir(tmp_path)
    given = {"dir": "project/D", "cache_dir": "~/cache", "source_dir": None}
    directory = RunDirectory("project/runs/a")
    directory.write_json("config.json", {"data": {**given, "seed": 0}})
    assert folders("project/runs/a") == {**given, "seed": 0}
    directory.write_places(given)
    known = {**given, "dir": f"{tmp_path}/project/D", "seed": 0}
    monkeypatch.chdir("project/runs")
    assert folders("a") == known  # though it is not there
    Path(tmp_path, "project/D").mkdir()
    assert folders("a") == known
    Path("a").rename(tmp_path / "alone")
    monkeypatch.chdir("/")
    assert folders(tmp_path / "alone") == known
    (tmp_path / "alone").rename(tmp_path / "project" / "runs" / "a")
    (tmp_path / "project").rename(tmp_path / "moved")
    known["dir"] = f"{tmp_path}/moved/D"
    assert folders(tmp_path / "moved" / "runs" / "a") == known
    places = json.loads((tmp_path / "moved/runs/a/places.json").read_text())
    assert places["dir"] == ["../../D", f"{tmp_path}/project/D"]


def test_a_damaged_file_is_named(tmp_path):
    directory = RunDirectory(tmp_path)
    for content in (b"{", b"\xff"):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(UserError, match=r"config\.json is damaged"):
            directory.read_config()


def test_a_run_that_was_killed_while_it_began_may_begin_again(tmp_path):
    directory = RunDirectory(tmp_path)
    (tmp_path / "config.json.draft").write_text('{"se')
    directory.check_config({"seed": 1})
    directory.write_json("config.json", {"seed": 1})
    assert directory.exists
    assert not directory.is_complete
    directory.check_config({"seed": 1})
    assert not directory.run_id
    directory.write_about({})
    assert directory.is_complete
    directory.check_config({"seed": 1})


def test_each_run_has_an_id_of_its_own(tmp_path):
    directories = [RunDirectory(tmp_path / name) for name in "ab"]
    for directory in directories:
        directory.write_json("config.json", {})
        directory.write_about({})
    one, other = (directory.run_id for directory in directories)
    assert one != other
    assert RunDirectory(tmp_path / "a").run_id == one


@pytest.mark.parametrize(
    "name", ["a\\b", "[1]", "*", "?", "a\nb", "\x7f", os.fsdecode(b"\xff")]
)
def test_a_name_that_libraries_misread_is_refused(tmp_path, name):
    (tmp_path / "link").symlink_to(tmp_path / name)
    for path in (tmp_path / name / "run", tmp_path / "link" / "run"):
        with pytest.raises(UserError, match="choose a path"):
            RunDirectory(path)
    with pytest.raises(UserError, match="choose a path"):
        Storage(tmp_path / name)


def test_a_name_that_python_encodes_otherwise_is_refused(tmp_path, monkeypatch):
    RunDirectory(tmp_path / "\u00e9")
    monkeypatch.setattr(os, "fsencode", lambda path: str(path).encode("latin-1"))
    with pytest.raises(UserError, match="set PYTHONUTF8=1"):
        RunDirectory(tmp_path / "\u00e9")


def test_a_user_without_a_home_is_no_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not RunDirectory("~nobody-of-this-name/run").exists

"""Checkpoints are whole or not there, and the newest whole one is found."""

import resource
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.checkpoint import Checkpoints
from training.checkpoint_params import resolve_steps, restore_params
from training.checksums import checked_files, find_corruption
from training.run_dir import RunDirectory
from utils.errors import UserError


def content(value):
    return {"state": {"params": {"w": jnp.full((3, 2), value)}}, "carry": ()}


def save(checkpoints, step, selection_score=None):
    checkpoints.save(step, content(float(step)), {"logged": step}, selection_score)


def test_checkpoints_keep_the_newest_two_and_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step, selection_score in [(1, 5.0), (2, 9.0), (3, None), (4, 7.0), (6, np.nan)]:
        save(checkpoints, step, selection_score)
    checkpoints.manager.wait_until_finished()
    assert checkpoints.steps() == [2, 4, 6]
    assert (resolve_steps(checkpoints, "best"), resolve_steps(checkpoints, "last")) == (
        (2,),
        (6,),
    )
    assert resolve_steps(checkpoints, "4") == (4,)
    assert resolve_steps(checkpoints, "average:2") == (4, 6)
    with pytest.raises(UserError, match="'average:N' of the newest N up to 3"):
        resolve_steps(checkpoints, "average:4")
    for which in ("3", "²", "average:²", "average:0", "04", ""):
        with pytest.raises(UserError, match="2, 4, 6"):
            resolve_steps(checkpoints, which)
    found, progress = checkpoints.restore(4, content(0.0))
    np.testing.assert_array_equal(found["state"]["params"]["w"], 4.0)
    assert progress == {"logged": 4}
    np.testing.assert_array_equal(restore_params(checkpoints, 2)["w"], 2.0)
    np.testing.assert_array_equal(restore_params(checkpoints, 2, 4, 6)["w"], 4.0)
    checkpoints.close()


def test_as_many_are_kept_as_are_asked_for(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", last=1, best=2)
    for step, selection_score in [(1, 5.0), (2, 9.0), (3, 1.0), (4, 7.0), (5, 2.0)]:
        save(checkpoints, step, selection_score)
    checkpoints.manager.wait_until_finished()
    assert checkpoints.steps() == [2, 4, 5]
    checkpoints.close()


def test_a_step_saved_again_is_replaced(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    save(checkpoints, 1)
    checkpoints.save(1, content(7.0), {"logged": 8}, 5.0)
    checkpoints.manager.wait_until_finished()
    found, progress = checkpoints.restore_newest(content(0.0))
    np.testing.assert_array_equal(found["state"]["params"]["w"], 7.0)
    assert progress == {"logged": 8}
    checkpoints.close()


@pytest.mark.parametrize("last", [1, 2])
def test_a_kill_while_a_step_is_saved_again_loses_nothing(tmp_path, monkeypatch, last):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, last=last, best=0)
    save(checkpoints, 1)
    save(checkpoints, 2)
    checkpoints.close()
    checkpoints = Checkpoints(folder, last=last, best=0)
    before = checkpoints.steps()

    def killed(*_, **__):
        raise SystemExit

    monkeypatch.setattr(checkpoints.manager, "save", killed)
    with pytest.raises(SystemExit):
        save(checkpoints, 2, 5.0)
    assert 2 not in Checkpoints(folder, is_reader=True).steps()
    checkpoints = Checkpoints(folder, last=last, best=0)
    assert checkpoints.steps() == before
    assert find_corruption(folder / "2") is None
    save(checkpoints, 2, 5.0)
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints"]
    assert sorted(path.name for path in folder.iterdir()) == list(map(str, before))


def test_who_reads_leaves_alone_what_another_process_is_writing(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder)
    save(checkpoints, 1)
    checkpoints.close()
    draft = folder / "2.orbax-checkpoint-tmp"
    draft.mkdir()
    assert Checkpoints(folder, is_reader=True).steps() == [1]
    assert draft.exists()
    writer = Checkpoints(folder)
    save(writer, 3)  # by then it has cleaned up, which it does in the background
    writer.close()
    assert not draft.exists()


def test_a_run_without_checkpoints_is_named(tmp_path):
    reader = Checkpoints(tmp_path / "run" / "checkpoints", is_reader=True)
    with pytest.raises(UserError, match="/run has no checkpoint yet"):
        resolve_steps(reader, "best")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with checkpoints 1 and 2."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    checkpoints = Checkpoints(folder)
    save(checkpoints, 1, 5.0)
    save(checkpoints, 2, 4.0)
    checkpoints.close()
    return folder


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [flip, truncate, lambda path: path.unlink()])
def test_damage_of_any_file_is_seen(two, tmp_path, harm):
    names = [path.relative_to(two / "2") for path in checked_files(two / "2")]
    assert len(names) > 5
    for name in names:
        copy = tmp_path / "2"
        shutil.copytree(two / "2", copy)
        assert find_corruption(copy) is None
        harm(copy / name)
        assert str(name) in find_corruption(copy)
        shutil.rmtree(copy)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(two, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two, folder)
    data = max(checked_files(folder / "2"), key=lambda path: path.stat().st_size)
    flip(data)
    checkpoints = Checkpoints(folder)
    with pytest.raises(UserError, match="checkpoint 2 is damaged"):
        restore_params(checkpoints, 2)
    found, progress = checkpoints.restore_newest(content(0.0))
    np.testing.assert_array_equal(found["state"]["params"]["w"], 1.0)
    assert progress == {"logged": 1}
    assert "warning: checkpoint 2 is damaged" in capsys.readouterr().err
    save(checkpoints, 2)
    checkpoints.manager.wait_until_finished()
    assert checkpoints.steps() == [1, 2]
    assert (folder / "2.damaged-1").exists()
    checkpoints.close()


@pytest.mark.parametrize("left", [b"", b"\xff{"])
def test_scores_that_are_no_json_do_not_keep_a_run_from_going_on(
    two, tmp_path, capsys, left
):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two, folder)
    (folder / "2" / "metrics" / "metrics").write_bytes(left)
    checkpoints = Checkpoints(folder)  # where orbax reads them all
    assert checkpoints.steps() == [1]
    assert checkpoints.restore_newest(content(0.0))[1] == {"logged": 1}
    assert "warning: checkpoint 2 is damaged" in capsys.readouterr().err
    assert (folder / "2.damaged-1").exists()
    checkpoints.close()


def snapshot(folder):
    """All files below a folder with their contents, and all folders."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_nothing_of_others_is_moved_or_deleted(tmp_path):
    """Also where `checkpoints` is a link to a place with other things."""
    there, folder = tmp_path / "there" / "ck", tmp_path / "run" / "checkpoints"
    for name in ("replaced/2", "damaged/2", "ck/notes", "ck/a.orbax-checkpoint-tmp"):
        path = there.parent / name / "thesis.txt"
        path.parent.mkdir(parents=True)
        path.write_text("precious")
    folder.parent.mkdir()
    folder.symlink_to(there)
    before = snapshot(tmp_path)
    for _ in range(2):  # the second replaces checkpoints
        checkpoints = Checkpoints(folder, "ours", best=0)
        for step in (1, 2, 3):
            save(checkpoints, step)
        checkpoints.close()
        assert checkpoints.steps() == [2, 3]
    after = snapshot(tmp_path)
    assert before.items() <= after.items()
    ours = [path.relative_to(there) for path in after.keys() - before.keys()]
    assert {path.parts[0] for path in ours} == {"2", "3"}


@pytest.mark.parametrize("name", ["2", "2.replaced", "2.orbax-checkpoint-tmp"])
def test_something_else_in_the_place_of_a_checkpoint_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("precious")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=f"/{name} was not written by this run"):
        Checkpoints(tmp_path, "ours")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["2", "2.replaced"])
def test_the_checkpoint_of_another_run_is_refused(two, tmp_path, name):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two / "2", folder / name)
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=f"/{name} was not written by this run"):
        Checkpoints(folder, "other")
    if name == "2":
        reader = Checkpoints(folder, "other", is_reader=True)
        with pytest.raises(UserError, match="/2 is of another run: its run_id is ''"):
            restore_params(reader, 2)
    assert snapshot(tmp_path) == before


def test_a_link_to_a_checkpoint_is_not_the_run_s(two, tmp_path):
    (tmp_path / "2").symlink_to(two / "2")
    with pytest.raises(UserError, match="/2 was not written by this run"):
        Checkpoints(tmp_path)
    reader = Checkpoints(tmp_path, is_reader=True)
    np.testing.assert_array_equal(restore_params(reader, 2)["w"], 2.0)


def test_a_reader_changes_nothing(two, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two, folder)
    shutil.copytree(two / "2", folder / "3")
    (folder / "3" / "metrics" / "metrics").write_text("{")
    (folder / "4.orbax-checkpoint-tmp").mkdir()
    before = snapshot(tmp_path)
    reader = Checkpoints(folder, is_reader=True)
    assert (resolve_steps(reader, "best"), resolve_steps(reader, "last")) == (
        (1,),
        (3,),
    )
    assert reader.restore_newest(content(0.0))[1] == {"logged": 2}
    reader.close()
    assert Checkpoints(tmp_path / "none", is_reader=True).steps() == []
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["a,b=c ", "50%#:;'\"$&|<>~", "\u00e9\u3000"])
def test_a_run_may_have_an_odd_name(tmp_path, name):
    folder = RunDirectory(tmp_path / name).checkpoints
    checkpoints = Checkpoints(folder)
    save(checkpoints, 1)
    checkpoints.close()
    assert find_corruption(folder / "1") is None
    [written] = {path for path in tmp_path.rglob("checksums.json")}
    assert written == folder / "1" / "checksums.json"
    reader = Checkpoints(folder, is_reader=True)
    np.testing.assert_array_equal(restore_params(reader, 1)["w"], 1.0)


def test_where_all_are_damaged_a_run_begins_anew(two, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two, folder)
    for step in ("1", "2"):
        (folder / step / "checksums.json").unlink()
    checkpoints = Checkpoints(folder)
    assert checkpoints.restore_newest(content(0.0)) is None
    assert capsys.readouterr().err.count("checksums.json cannot be read") == 2
    checkpoints.close()


def test_a_checkpoint_of_other_shapes_is_not_taken_for_damaged(two, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two, folder)
    checkpoints = Checkpoints(folder)
    other = {"state": {"params": {"w": jnp.zeros((5, 2))}}, "carry": ()}
    with pytest.raises(UserError, match="checkpoint 2 is of another version"):
        checkpoints.restore_newest(other)
    assert checkpoints.steps() == [1, 2]
    checkpoints.close()


def test_a_write_that_fails_for_want_of_room_is_the_user_s_to_mend(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    big = jax.random.normal(jax.random.key(0), (400, 400))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill():
        checkpoints.save(1, {"state": {"params": {"w": big}}}, {}, None)
        checkpoints.close()

    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(UserError, match="disk full"):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_run_without_checkpoints_says_so(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="no checkpoint"):
        resolve_steps(checkpoints, "best")
    assert checkpoints.restore_newest(content(0.0)) is None
    checkpoints.close()


def test_no_file_is_too_large_to_be_carried_away(tmp_path):
    # A table of 53 MB; noise, which does not compress.
    table = jax.random.normal(jax.random.key(0), (33_280, 400))
    state = {"state": {"params": {"table": table}}, "carry": ()}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, state, {}, None)
    checkpoints.close()
    sizes = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()]
    assert table.nbytes / 2 < sum(sizes)
    assert max(sizes) < 16 * 2**20
    like = {"state": {"params": {"table": jnp.zeros_like(table)}}, "carry": ()}
    found, _ = Checkpoints(tmp_path / "checkpoints").restore(1, like)
    np.testing.assert_array_equal(found["state"]["params"]["table"], table)

"""After a restart the log goes on where the newest checkpoint stands."""

import json

from training.metric_writers import (
    MetricsFile,
    PlainConsole,
    TensorBoard,
    read_events,
    read_metrics,
)


def test_a_metrics_file_holds_each_step_once_after_a_restart(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path, {})
    for step in (1, 2, 3):
        first.write(step, "train", {"loss": 1.0 / step})
        first.write(step, "validation", {"loss": 1.0})
    with path.open("a") as file:
        file.write('{"step": 4, "spl')  # the process was killed here
    # A stop cut the validation of step 2 short.
    second = MetricsFile(path, {"train": 2, "validation": 1})
    second.write(3, "train", {"loss": float("nan")})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = [(row["step"], row["split"]) for row in rows]
    train, validation = "train", "validation"
    assert found == [(1, train), (1, validation), (2, train), (3, train)]
    assert rows[-1] == {"step": 3, "split": "train", "loss": None}


def test_lines_that_are_damaged_do_not_go_without_a_word(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    lines = [b'{"step": %d, "split": "train"}\n' % step for step in (1, 2, 3, 4)]
    lines[1:3] = [b"a\xff\n", b"[1]\n"]
    path.write_bytes(b"".join(lines) + b'{"step": 5')
    MetricsFile(path, {"train": 4})
    assert path.read_bytes() == lines[0] + lines[3]
    assert f"2 lines of {path} are damaged" in capsys.readouterr().err
    MetricsFile(path, {"train": 4})
    assert not capsys.readouterr().err


def written(folder):
    return [
        (event.step, value.tag)
        for path in sorted(folder.glob("*"))
        for _, event in read_events(path.read_bytes())
        for value in event.summary.value
    ]


def test_event_files_hold_each_step_once_after_a_restart(tmp_path):
    first = TensorBoard(tmp_path, {}, "ours")
    for step in (1, 2, 3):
        first.write(step, "train", {"loss": 1.0 / step})
        first.write(step, "validation", {"loss": 1.0})
    path = next(tmp_path.glob("*"))
    with path.open("ab") as file:
        file.write(b"\x18\0\0\0\0\0\0\0torn")
    second = TensorBoard(tmp_path, {"train": 2, "validation": 1}, "ours")
    second.write(3, "train", {"loss": 0.5})
    train, validation = "train/loss", "validation/loss"
    kept = [(1, train), (1, validation), (2, train), (3, train)]
    assert sorted(written(tmp_path)) == sorted(kept)


def test_event_files_of_another_run_stay(tmp_path):
    TensorBoard(tmp_path, {}, "other").write(1, "train", {"loss": 1.0})
    before = written(tmp_path)
    TensorBoard(tmp_path, {}, "ours")
    assert written(tmp_path) == before == [(1, "train/loss")]


def test_the_console_names_what_a_task_counts(capsys):
    console = PlainConsole(steps=4, step=0, unit="examples")
    console.write(2, "train", {"loss": 1.0, "examples_per_second": 1234.5})
    assert "1,234 examples/s" in capsys.readouterr().out


def test_damaged_lines_are_left_out_whatever_their_bytes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    whole = b'{"step": 1, "split": "train"}\n'
    path.write_bytes(
        whole
        + b'\xff\xfe\n[1]\n{"step": null, "split": "train"}\n'
        + whole
        + b'{"step": 2, "spl'
    )
    assert read_metrics(path) == 2 * [{"step": 1, "split": "train"}]

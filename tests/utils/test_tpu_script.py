"""scripts/tpu.sh, with a stand-in for gcloud whose VMs are folders.

The commands on the VMs are real processes. They train nothing, but resume from their
bucket as train.py and sweep.py do, and can have their own VM preempted.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GCLOUD = ROOT / "tests" / "helpers" / "fake_gcloud.py"
PLACE = "--zone=us-west4-a"
STOCKOUT = 'There is no more capacity in the zone "us-west4-a"; Error code 8'
QUOTA = "RESOURCE_EXHAUSTED: Quota limit 'V5' has been exceeded. Limit: 8 in region"

TRAIN = """
import fcntl, json, os, pathlib, signal, sys, time

signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
cloud, vm = pathlib.Path(os.environ["FAKE_CLOUD"]), pathlib.Path.home().parent
flags = dict(w[2:].partition("=")[::2] for w in sys.argv[1:] if w.startswith("--"))
run = cloud / "buckets" / flags["workdir"].removeprefix("gs://")
run.mkdir(parents=True, exist_ok=True)
plan = cloud / "preempt" / vm.name  # the steps after which this VM is lost


def train(file, steps):
    done = len(file.read_text().splitlines()) if file.exists() else 0
    for step in range(done, steps):
        with file.open("a") as log:
            log.write(f"{step} {vm.name} {VERSION}\\n")
        print("step", step, "of", file.name, flush=True)
        time.sleep(float(flags.get("seconds", 0.02)))
        left = plan.read_text().split() if plan.exists() else []
        if left and int(left[0]) == step:
            plan.write_text(" ".join(left[1:]))
            node = vm / "node.json"
            about = json.loads(node.read_text()) | {"state": "PREEMPTED"}
            scratch = vm / "node.new"
            scratch.write_text(json.dumps(about))
            scratch.rename(node)
            time.sleep(60)


VERSION = "first"
"""
ONE_RUN = """
print("arguments", sys.argv[1:], flush=True)
if "again" in flags and not (run / "again").exists():
    (run / "again").touch()
    sys.exit(75)
is_failing = pathlib.Path.home().name == flags.get("failing_worker", "worker-0")
if is_failing and "code" in flags:
    print("this is wrong", file=sys.stderr, flush=True)
    sys.exit(int(flags["code"]))
train(run / ("steps-" + pathlib.Path.home().name), int(flags.get("steps", 6)))
"""
ONE_SWEEP = """
trials = [run / f"trial-{k}" for k in range(int(flags.get("trials", 6)))]
while left := [t for t in trials if not t.with_suffix(".ended").exists()]:
    for trial in left:
        with trial.with_suffix(".lease").open("w") as lease:
            try:
                fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if not trial.with_suffix(".ended").exists():
                train(trial, 6)
                trial.with_suffix(".ended").touch()
    time.sleep(0.05)
"""
UV = """#!/bin/bash
echo "uv $*" >>"$FAKE_CLOUD/uv.txt"
[ "$1" != venv ] || { mkdir -p .venv/bin; ln -sf "$REAL_PYTHON" .venv/bin/python; }
"""


class Cloud:
    """Scratch checkout with the script, and the stand-in's folders."""

    def __init__(self, folder: Path):
        self.folder, self.checkout = folder / "cloud", folder / "checkout"
        for name in ("vms", "errors", "drop", "preempt", "buckets/b"):
            (self.folder / name).mkdir(parents=True)
        (self.checkout / "scripts").mkdir(parents=True)
        (self.checkout / "requirements").mkdir()
        for name in ("tpu.sh", "tpu.py", "tpu_worker.sh"):
            shutil.copy(ROOT / "scripts" / name, self.checkout / "scripts")
        self.write("requirements/tpu.txt", "jax[tpu]\n")
        self.write("train.py", TRAIN + ONE_RUN)
        self.write("sweep.py", TRAIN + ONE_SWEEP)
        self.write(".gitignore", ".cache/\nruns/\n.venv/\n")
        self.git("init", "--quiet")
        self.commit()
        programs = folder / "bin"
        programs.mkdir()
        gcloud = f'#!/bin/sh\nexec {sys.executable} -S {GCLOUD} "$@"\n'
        for name, text in {"gcloud": gcloud, "uv": UV}.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "REAL_PYTHON": sys.executable,
            "FAKE_CLOUD": str(self.folder),
            "TPU_PAUSE_SCALE": "0.01",
        }

    def write(self, name: str, text: str) -> None:
        (self.checkout / name).write_text(text)

    def git(self, *words: str) -> str:
        user = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(self.checkout), *user, *words]
        return subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=change")

    def start(self, *words: str) -> subprocess.Popen:
        return subprocess.Popen(
            ["sh", "scripts/tpu.sh", *words],
            cwd=self.checkout,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell ignores it in commands that it starts with `&`, such as all tests.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *words: str, code: int = 0, given: str = "") -> str:
        process = self.start(*words)
        output, _ = process.communicate(given, timeout=120)
        assert process.returncode == code, output
        return output

    def calls(self, *beginning: str) -> list[list[str]]:
        file = self.folder / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        calls = [json.loads(line) for line in lines]
        return [c for c in calls if c[2 : 2 + len(beginning)] == list(beginning)]

    def errors(self, verb: str, name: str, *lines: str) -> None:
        (self.folder / "errors" / f"{verb}-{name}").write_text("\n".join(lines))

    def vms(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "vms").glob("*"))

    def home(self, name: str, worker: int = 0) -> Path:
        return self.folder / "vms" / name / f"worker-{worker}"

    def steps(self, file: str) -> list[list[str]]:
        lines = (self.folder / "buckets/b" / file).read_text().splitlines()
        return [line.split() for line in lines]

    def wait_for(self, file: str, lines: int = 1) -> None:
        path, deadline = self.folder / file, time.monotonic() + 60
        while not path.exists() or len(path.read_text().splitlines()) < lines:
            assert time.monotonic() < deadline, f"{file} does not come"
            time.sleep(0.02)


@pytest.fixture
def cloud(tmp_path):
    cloud = Cloud(tmp_path)
    yield cloud
    for file in cloud.folder.glob("vms/*/worker-*/attention-lab/.cache/*/pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(file.read_text()), signal.SIGKILL)


@pytest.fixture
def vm(cloud):
    """Cloud with one VM on which the checkout is installed."""
    cloud.run("create", "a", PLACE, "--type=v5litepod-8", "--spot")
    cloud.run("install", "a")
    return cloud


def test_create_makes_a_vm_and_reuses_it(cloud):
    flags = (PLACE, "--type=v5litepod-8", "--spot", "--project=p")
    assert "READY" in cloud.run("create", "a", *flags)
    (call,) = cloud.calls("tpu-vm", "create")
    assert call[4:] == [
        "a",
        "--accelerator-type=v5litepod-8",
        "--spot",
        "--version=v2-alpha-tpuv5-lite",
        PLACE,
        "--project=p",
        "--quiet",
    ]
    assert "existed already" in cloud.run("create", "a", *flags)
    assert len(cloud.calls("tpu-vm", "create")) == 1
    error = cloud.run("create", "a", PLACE, "--type=v5litepod-16", code=2)
    assert "exists with --type=v5litepod-8, not v5litepod-16" in error


def test_create_waits_in_the_queue_and_delete_leaves_nothing_there(cloud):
    output = cloud.run("create", "a", PLACE, "--type=v6e-8", "--queued", "--spot")
    assert "WAITING_FOR_RESOURCES; waits" in output
    (call,) = cloud.calls("queued-resources", "create")
    assert {"--node-id=a", "--runtime-version=v2-alpha-tpuv6e", "--spot"} < set(call)
    cloud.run("delete", "a")
    assert not cloud.vms()
    assert not list((cloud.folder / "queue").iterdir())


def test_create_asks_again_for_capacity_and_quota(cloud):
    cloud.errors("create", "a", STOCKOUT, QUOTA, "Error code 13, message: internal")
    output = cloud.run("create", "a", PLACE, "--type=v5litepod-8")
    seconds = re.findall(r"tries again in (\d+) s", output)
    assert seconds == ["30", "45", "68"]
    assert "no more capacity in the zone" in output
    assert len(cloud.calls("tpu-vm", "create")) == 4


@pytest.mark.parametrize(
    "error", ["PERMISSION_DENIED: no", "Quota limit 'V5' exceeded. Limit: 0 in region"]
)
def test_create_stops_at_errors_that_do_not_pass(cloud, error):
    cloud.errors("create", "a", error)
    assert error in cloud.run("create", "a", PLACE, "--type=v5litepod-8", code=2)


def test_what_is_installed_is_the_work_tree(cloud):
    cloud.run("create", "a", PLACE, "--type=v5litepod-16")
    cloud.run("install", "a")
    cloud.git("mv", "sweep.py", "moved.py")
    cloud.write("train.py", "print('changed')\n")
    cloud.write("new file.py", "x = 1\n")
    (cloud.checkout / "runs").mkdir()
    cloud.write("runs/ignored.txt", "")
    for worker in (0, 1):
        (cloud.home("a", worker) / "attention-lab/runs").mkdir()
        (cloud.home("a", worker) / "attention-lab/runs/own.txt").touch()
    status = cloud.git("status", "--short")
    cloud.run("install", "a")
    assert cloud.git("status", "--short") == status
    for worker in (0, 1):
        folder = cloud.home("a", worker) / "attention-lab"
        assert (folder / "train.py").read_text() == "print('changed')\n"
        assert (folder / "new file.py").exists()
        assert (folder / "moved.py").exists()
        assert not (folder / "sweep.py").exists()
        assert not (folder / "runs/ignored.txt").exists()
        assert (folder / "runs/own.txt").exists()
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        head = subprocess.run(command, check=True, capture_output=True, text=True)
        assert head.stdout == cloud.git("rev-parse", "HEAD")
    calls = (cloud.folder / "uv.txt").read_text().splitlines()
    assert sum("pip install" in c and "requirements/tpu.txt" in c for c in calls) == 4


def test_a_failed_installation_is_tried_again(cloud):
    cloud.run("create", "a", PLACE, "--type=v5litepod-8")
    cloud.errors("scp", "a", "Connection reset")
    assert "attempt 1 of 10" in cloud.run("install", "a")
    assert (cloud.home("a") / "attention-lab/.venv/ready").exists()


def test_a_run_comes_back_after_preemptions_with_the_code_of_its_install(vm):
    (vm.folder / "preempt/a").write_text("1 3")
    vm.write("train.py", "raise SystemExit('this was not installed')\n")
    output = vm.run("run", "a", "--", "python", "train.py", "--workdir=gs://b/r")
    assert "warning: this checkout differs" in output
    assert output.count("PREEMPTED; creates it again") == 2
    steps = vm.steps("r/steps-worker-0")
    assert steps == [[str(step), "a", "first"] for step in range(6)]
    assert len(vm.calls("tpu-vm", "create")) == 3
    assert all("--spot" in call for call in vm.calls("tpu-vm", "create"))


def test_a_run_on_a_queued_vm_asks_the_queue_again(cloud):
    cloud.run("create", "a", PLACE, "--type=v5litepod-8", "--queued", "--spot")
    cloud.run("install", "a")
    (cloud.folder / "preempt/a").write_text("2")
    cloud.run("run", "a", "--", "python", "train.py", "--workdir=gs://b/r")
    assert len(cloud.steps("r/steps-worker-0")) == 6
    assert len(cloud.calls("queued-resources", "create")) == 2
    assert not cloud.calls("tpu-vm", "create")


def test_a_vm_made_elsewhere_comes_back_as_it_was(vm):
    (vm.folder / "preempt/a").write_text("2")
    (vm.checkout / ".cache/tpu/a.json").unlink()
    vm.run("run", "a", PLACE, "--", "python", "train.py", "--workdir=gs://b/r")
    first, second = vm.calls("tpu-vm", "create")
    assert sorted(second) == sorted(first)
    assert len(vm.steps("r/steps-worker-0")) == 6


def test_a_run_recreates_a_vm_that_is_gone(vm):
    vm.run("delete", "a")
    vm.run("create", "a", PLACE, "--type=v5litepod-8")
    shutil.rmtree(vm.folder / "vms/a")
    vm.run("run", "a", "--", "python", "train.py", "--workdir=gs://b/r")
    assert len(vm.steps("r/steps-worker-0")) == 6


def test_exit_code_75_is_run_again(vm):
    flags = ("--workdir=gs://b/r", "--again=1")
    output = vm.run("run", "a", "--", "python", "train.py", *flags)
    assert "ended with 75; the command is started again" in output
    assert len(vm.steps("r/steps-worker-0")) == 6


def test_another_exit_code_stops_with_the_last_lines(vm):
    flags = ("--workdir=gs://b/r", "--code=3")
    output = vm.run("run", "a", "--", "python", "train.py", *flags, code=3)
    assert "[a] the command ended with 3; its last lines:" in output.splitlines()
    assert output.splitlines()[-1] == "[a]   this is wrong"
    assert len(vm.calls("tpu-vm", "create")) == 1


def test_arguments_arrive_as_they_were_given(vm):
    words = ["--name=two  words", "it's", '"$HOME" *', "--", "a,b"]
    command = ["python", "train.py", "--workdir=gs://b/r", *words]
    output = vm.run("run", "a", "--", *command)
    assert f"[a] arguments {command[2:]}" in output.splitlines()


def test_all_workers_of_a_slice_run_with_a_prefix_each(cloud):
    cloud.run("create", "a", PLACE, "--type=v5litepod-32")
    cloud.run("install", "a")
    command = ["run", "a", "--", "python", "train.py", "--workdir=gs://b/r"]
    lines = cloud.run(*command).splitlines()
    for worker in range(4):
        assert f"[a/{worker}] step 5 of steps-worker-{worker}" in lines
    flags = ("--code=4", "--failing_worker=worker-2", "--steps=7")
    assert "this is wrong" in cloud.run(*command, *flags, code=4).splitlines()[-1]


def test_a_lost_connection_does_not_start_the_command_twice(vm):
    (vm.folder / "drop/a").touch()
    flags = ("--workdir=gs://b/r", "--seconds=0.2")
    output = vm.run("run", "a", "--", "python", "train.py", *flags)
    assert "Retrying" in output
    assert not (vm.folder / "drop/a").exists()
    assert [int(step) for step, *_ in vm.steps("r/steps-worker-0")] == list(range(6))
    assert "[a] step 5 of steps-worker-0" in output.splitlines()


def test_a_run_goes_on_after_control_c_and_is_resumed(vm):
    command = ["run", "a", "--", "python", "train.py", "--workdir=gs://b/r"]
    process = vm.start(*command, "--seconds=0.3", "--steps=60")
    vm.wait_for("buckets/b/r/steps-worker-0", 2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "a command that has started goes on there" in output
    seen = len(vm.steps("r/steps-worker-0"))
    vm.wait_for("buckets/b/r/steps-worker-0", seen + 1)
    vm.run(*command, "--steps=30")
    assert [int(step) for step, *_ in vm.steps("r/steps-worker-0")] == list(range(30))


def test_results_are_copied_from_a_bucket_and_from_a_vm(vm):
    vm.run("run", "a", "--", "python", "train.py", "--workdir=gs://b/r")
    vm.run("copy", "a", "gs://b/r/")
    assert (vm.checkout / "runs/r/steps-worker-0").exists()
    (vm.home("a") / "attention-lab/runs/own").mkdir(parents=True)
    vm.run("copy", "a", "runs/own", "other")
    assert (vm.checkout / "other/own").exists()
    assert "is not copied" in vm.run("copy", "a", "gs://b/none", code=2)


def test_list_and_delete(vm):
    assert vm.run("list").split() == ["NAME", "a"]
    vm.run("delete", "a")
    assert not vm.vms()
    assert "does not exist in us-west4-a" in vm.run("delete", "a", PLACE, code=2)


SWEEP = ["sweep", PLACE, "--type=v5litepod-1", "--spot", "--name=s", "--workers=3"]
STUDY = ["--", "python", "sweep.py", "--workdir=gs://b/s"]


def assert_study_is_complete(cloud, trials: int = 6) -> None:
    for trial in range(trials):
        steps = [int(step) for step, *_ in cloud.steps(f"s/trial-{trial}")]
        assert steps == list(range(6)), trial


def test_a_sweep_survives_preemptions_and_deletes_its_vms(cloud):
    for name, step in {"s-0": "1", "s-2": "2 4"}.items():
        (cloud.folder / "preempt" / name).write_text(step)
    cloud.errors("create", "s-1", STOCKOUT, QUOTA)
    output = cloud.run(*SWEEP, *STUDY, "--trials=12", "--seconds=0.1")
    assert "the study is complete" in output
    assert output.count("PREEMPTED; creates it again") == 3
    assert_study_is_complete(cloud, 12)
    assert not cloud.vms()
    assert not list((cloud.checkout / ".cache/tpu").glob("*.json"))
    calls = cloud.calls("tpu-vm", "create")
    assert {call[4] for call in calls} == {"s-0", "s-1", "s-2"}


@pytest.mark.slow
def test_a_sweep_is_complete_though_one_vm_never_came(cloud):
    cloud.errors("create", "s-1", *[STOCKOUT] * 10_000)
    output = cloud.run(*SWEEP, *STUDY)
    assert "the study is complete" in output
    assert_study_is_complete(cloud)
    assert not cloud.vms()


@pytest.mark.slow
def test_a_sweep_keeps_its_vms_if_asked(cloud):
    output = cloud.run(*SWEEP, "--keep", *STUDY)
    assert cloud.vms() == ["s-0", "s-1", "s-2"]
    assert "to delete: scripts/tpu.sh delete s-0 s-1 s-2" in output
    cloud.run("delete", "s-0", "s-1", "s-2")
    assert not cloud.vms()


def test_a_sweep_whose_command_fails_says_so_and_deletes_its_vms(cloud):
    command = ["--", "python", "-c", "exit(3)", "--workdir=gs://b/s"]
    output = cloud.run(*SWEEP, *command, code=3)
    assert "the study is not complete" in output
    assert "s-1 failed with 3" in output
    assert not cloud.vms()


@pytest.mark.parametrize(
    "answer",
    [
        "y\n",
        pytest.param("n\n", marks=pytest.mark.slow),
        pytest.param("", marks=pytest.mark.slow),
    ],
)
def test_control_c_in_a_sweep_asks_before_it_deletes(cloud, answer):
    process = cloud.start(*SWEEP, *STUDY, "--seconds=5")
    for trial in range(3):
        cloud.wait_for(f"buckets/b/s/trial-{trial}")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(answer, timeout=60)
    assert process.returncode == 130
    assert "This deletes s-0, s-1, s-2." in output
    assert cloud.vms() == ([] if answer == "y\n" else ["s-0", "s-1", "s-2"])
    if answer == "n\n":  # the same command goes on
        cloud.run(*SWEEP, *STUDY)
        assert_study_is_complete(cloud)
        assert not cloud.vms()


TYPE = "--type=v5litepod-1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "SUBCOMMAND"),
        (("make", "a"), "invalid choice: 'make'"),
        (("create",), "NAME"),
        (("create", "Big_VM", PLACE), "must be lower-case letters"),
        (("create", "a", TYPE), "add --zone=ZONE"),
        (("create", "a", PLACE), "add --type"),
        (("create", "a", PLACE, "--type=v9-8"), "add --version=VERSION"),
        (("create", "a", PLACE, "--", "x"), "takes no command"),
        (("run", "a", "--", "python"), "add --zone=ZONE"),
        (("run", "a", PLACE), "a command is missing"),
        (("run", "a", PLACE, "--", "python"), "add --type"),
        (("sweep", PLACE, TYPE, "--", "x"), "--workers"),
        ((*SWEEP, "--", "x"), "--workdir=(missing) must be in a bucket"),
        ((*SWEEP, "--", "x", "--workdir", "runs/s"), "--workdir=runs/s must be in"),
        ((*SWEEP, "--workers=0", *STUDY), "--workers=0 must be at least 1"),
    ],
)
def test_mistakes_are_one_line(cloud, words, message):
    output = cloud.run(*words, code=2)
    assert message in output
    assert output.startswith("error: ")
    assert len(output.splitlines()) == 1


def test_a_missing_gcloud_is_one_line(cloud):
    (cloud.folder.parent / "bin/gcloud").unlink()
    system = cloud.folder.parent / "system"
    system.mkdir()
    for name in ("sh", "dirname", "git"):
        (system / name).symlink_to(shutil.which(name))
    cloud.environment["PATH"] = str(system)
    output = cloud.run("create", "a", PLACE, TYPE, code=2)
    assert output.startswith("error: gcloud is not installed")


def test_a_dry_run_prints_calls_and_makes_none(cloud):
    output = cloud.run(*SWEEP, "--dry_run", *STUDY)
    lines = output.splitlines()
    assert all(line.startswith("gcloud compute tpus tpu-vm ") for line in lines)
    verbs = [line.split()[4] for line in lines if " describe " not in line]
    assert verbs == 3 * ["create", "scp", "ssh", "ssh", "delete"]
    assert not cloud.calls()
    assert not (cloud.checkout / ".cache").exists()

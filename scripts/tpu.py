r"""Creates TPU VMs and slices, installs this checkout on them and runs commands there.

scripts/tpu.sh create NAME --zone=us-west4-a --type=v5litepod-8 --spot
scripts/tpu.sh install NAME
scripts/tpu.sh run NAME -- python train.py --config=FILE --workdir=gs://bucket/runs/a
scripts/tpu.sh copy NAME gs://bucket/runs/a
scripts/tpu.sh delete NAME
scripts/tpu.sh list
scripts/tpu.sh sweep --workers=16 --type=v5litepod-1 --zone=us-west4-a --spot \
    -- python sweep.py --config=FILE --space=FILE --workdir=gs://bucket/sweep

run and sweep come back after a preemption: they create the VM again, install the code
of the last install, and start the same command, which resumes from its bucket. Exit
codes of a command: 0 has ended, 75 is run again, any other one stops. See docs/tpu.md.
"""

# The standard library alone: this runs where the project need not be installed.
import argparse
import contextlib
import hashlib
import itertools
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / ".cache" / "tpu"  # options and code of the VMs created here
VERSIONS = {  # of the VM's software, by the beginning of the accelerator type
    **dict.fromkeys(("v2-", "v3-", "v4-"), "tpu-ubuntu2204-base"),
    "v5litepod-": "v2-alpha-tpuv5-lite",
    "v5p-": "v2-alpha-tpuv5",
    "v6e-": "v2-alpha-tpuv6e",
}
INSTALL = (  # removes the files of the code before, keeps those of runs
    "mkdir -p attention-lab && cd attention-lab && rm -f .venv/ready && "
    "(test ! -d .git || git ls-files -z | xargs -0 rm -f) && rm -rf .git && "
    "tar xzf ../attention-lab.tgz --no-same-owner && "
    "exec bash scripts/tpu_worker.sh install"
)
RUN = (
    "test -f attention-lab/.venv/ready || exit 97; "
    "exec bash attention-lab/scripts/tpu_worker.sh run "
)
AGAIN, CONNECTION, NOT_INSTALLED = 75, 255, 97  # exit codes on a worker
GONE = ("PREEMPTED", "TERMINATED", "FAILED", "SUSPENDED")  # to be created again
UNUSABLE = ("STOPPED", "HIDDEN")  # states other than READY and GONE are waited for
MISSING = re.compile(r"NOT_FOUND|was not found", re.IGNORECASE)
REFUSED = re.compile(
    r"PERMISSION_DENIED|not have permission|UNAUTHENTICATED|auth login|active account"
    r"|INVALID_ARGUMENT|SERVICE_DISABLED|unrecognized arguments|Limit: 0\b"
)
NO_CAPACITY = re.compile(
    r"RESOURCE_EXHAUSTED|no more capacity|stockout|insufficient|quota|UNAVAILABLE"
    r"|INTERNAL|already.exists|code\W+(8|10|13|14)\b",
    re.IGNORECASE,
)
CHATTER = ("Using ssh batch", "SSH: Attempting", "Using scp batch", "SCP: Attempting")
SSH_OPTIONS = ("ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=8")
SCALE = float(os.environ.get("TPU_PAUSE_SCALE", "1"))  # of pauses; tests lower it
CHECK, GRACE = 60, 300  # seconds between looks at a VM; for workers after one failed
CONNECTIONS = 10  # attempts to reach a VM that is READY

options = argparse.Namespace()
stop = threading.Event()  # nothing more is to be created or started
children: set[subprocess.Popen] = set()


class UserError(Exception):
    """Error that is reported in one line, with exit code 2."""


class StoppedError(Exception):
    """Signals in the thread of a VM that `stop` is set."""


def say(name: str, line: str) -> None:
    """Prints a line with the VM or worker that it is about."""
    if options.dry_run:
        return
    sys.stdout.write(f"[{name}] {line.rstrip()}\n")
    sys.stdout.flush()


def pause(seconds: float) -> None:
    """Waits; raises StoppedError once `stop` is set."""
    if not options.dry_run and stop.wait(seconds * SCALE):
        raise StoppedError


def growing_pauses() -> Iterator[float]:
    """Yields 30 seconds, then 1.5 times as many each time, at most 15 minutes."""
    return (min(30 * 1.5**k, 900.0) for k in itertools.count())


def start(command: list[str], errors: int) -> subprocess.Popen:
    """Starts a program in a process group of its own, which Ctrl-C does not reach."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": errors}
    process = subprocess.Popen(
        command, text=True, errors="replace", process_group=0, **streams
    )
    children.add(process)
    return process


def kill(processes: set[subprocess.Popen]) -> None:
    """Terminates programs started here, with their children."""
    for process in list(processes):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def gcloud(*words: str) -> tuple[int, str]:
    """Returns the exit code of gcloud, and its output or else its error in one line."""
    command = ["gcloud", *words, "--quiet"]
    if options.dry_run:
        print(shlex.join(command))
        return 0, ""
    process = start(command, subprocess.PIPE)
    output, error = process.communicate()
    children.discard(process)
    if process.returncode < 0:  # killed after Ctrl-C
        raise StoppedError
    if process.returncode == 0:
        return 0, output
    return process.returncode, " ".join(error[error.find("ERROR") :].split())[:500]


def git(*words: str) -> str:
    """Returns the output of git in this checkout."""
    command = ["git", "-C", str(ROOT), *words]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise UserError(f"git {words[0]} failed: {done.stderr.strip()}")
    return done.stdout


def code_version() -> str:
    """Returns a hash of HEAD and of the changes of the work tree."""
    state = (
        git("rev-parse", "HEAD") + git("status", "--porcelain") + git("diff", "HEAD")
    )
    return hashlib.sha256(state.encode()).hexdigest()


def pack(archive: Path) -> None:
    """Writes the files of the work tree and a repository of HEAD as an archive."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    files = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    files = [
        name for name in files.split("\0") if name and os.path.lexists(ROOT / name)
    ]
    with tempfile.TemporaryDirectory() as clone:
        source = ROOT.as_uri()
        git("clone", "--quiet", "--depth=1", "--no-checkout", source, clone)
        git("-C", clone, "reset", "--quiet")  # without it all files count as deleted
        tar = ["tar", "czf", archive, "-C", clone, ".git", "-C", ROOT, "--null", "-T-"]
        subprocess.run(tar, input="\0".join(files), text=True, check=True)
    say("pack", f"{len(files)} files, {archive.stat().st_size / 1e6:.1f} MB")


class Vm:
    """TPU VM or slice: its options, and the archive of the code installed on it."""

    def __init__(self, name: str, archive: Path | None = None):
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,60}[a-z0-9])?", name):
            raise UserError(
                f"NAME {name!r} must be lower-case letters, digits and hyphens, at "
                "most 62, with a letter first"
            )
        self.name, self.record = name, RECORDS / f"{name}.json"
        self.archive = archive or RECORDS / f"{name}.tgz"
        self.spec = json.loads(self.record.read_text()) if self.record.exists() else {}
        for key in ("zone", "project", "type", "version", "spot", "queued"):
            if value := getattr(options, key, None):
                self.spec[key] = name if key == "queued" else value
        if "zone" not in self.spec:
            raise UserError(
                f"{name} was not created from this checkout: add --zone=ZONE, or run "
                "tpu.sh create NAME --zone=ZONE --type=TYPE, which reuses a VM"
            )
        self.num_workers, self.type, self.is_known = 1, "", False
        self.exists = options.subcommand not in ("create", "sweep")  # for --dry_run

    def save(self, **changes) -> None:
        """Writes the options to the record that later calls read."""
        self.spec |= changes
        if not options.dry_run:
            RECORDS.mkdir(parents=True, exist_ok=True)
            self.record.write_text(json.dumps(self.spec))

    def call(self, group: str, verb: str, *words: str) -> list[str]:
        """Returns the words of a call of gcloud about this VM."""
        place = [f"--{k}={self.spec[k]}" for k in ("zone", "project") if k in self.spec]
        return ["compute", "tpus", group, verb, *words, *place]

    def describe(self, group: str = "tpu-vm") -> dict | None:
        """Returns the description of the VM or its queued resource, None if absent."""
        name = self.name if group == "tpu-vm" else self.spec["queued"]
        call = self.call(group, "describe", name, "--format=json")
        for seconds in itertools.islice(growing_pauses(), 6):
            code, output = gcloud(*call)
            if options.dry_run:
                return {"state": "READY"} if self.exists else None
            if code == 0 or MISSING.search(output):
                self.is_known = True
                return json.loads(output) if code == 0 else None
            if REFUSED.search(output) or not self.is_known:
                break
            say(self.name, f"{output}; tries again in {seconds:.0f} s")
            time.sleep(seconds * SCALE)
        raise UserError(f"{self.name}: {output}")

    def state(self) -> str | None:
        """Returns the state of the VM, else of its queued resource.

        Options that were not given become those of the VM, to create the same again.
        """
        if node := self.describe():
            self.type = node.get("acceleratorType", "").split("/")[-1]
            self.num_workers = len(node.get("networkEndpoints", ())) or 1
            scheduling = node.get("schedulingConfig", {})
            self.spec = {
                "type": self.type,
                "version": node.get("runtimeVersion"),
                "spot": bool(scheduling.get("spot") or scheduling.get("preemptible")),
            } | self.spec
            if "queuedResource" in node:
                self.spec["queued"] = node["queuedResource"].split("/")[-1]
            return node["state"]
        if self.spec.get("queued") and (request := self.describe("queued-resources")):
            return request["state"]["state"]
        return None

    def is_lost(self) -> bool:
        """Returns whether a VM in use is no longer READY; False if gcloud fails."""
        with contextlib.suppress(UserError, StoppedError):
            return self.state() != "READY"
        return False

    def create(self) -> str | None:
        """Asks for the VM once; returns the reason if there is no capacity."""
        kind = self.spec.get("type")
        if not kind:
            raise UserError(f"{self.name} does not exist: add --type, as v5litepod-8")
        images = (image for key, image in VERSIONS.items() if kind.startswith(key))
        version = self.spec.get("version") or next(images, None)
        if not version:
            known = ", ".join(key + "N" for key in VERSIONS)
            raise UserError(f"--type={kind} is none of {known}: add --version=VERSION")
        if stop.is_set():
            raise StoppedError
        self.save()
        flags = [f"--accelerator-type={kind}", *["--spot"] * self.spec.get("spot", 0)]
        if self.spec.get("queued"):
            flags += [f"--runtime-version={version}", f"--node-id={self.name}"]
            call = self.call("queued-resources", "create", self.spec["queued"], *flags)
        else:
            call = self.call(
                "tpu-vm", "create", self.name, *flags, f"--version={version}"
            )
        code, error = gcloud(*call)
        self.exists = True
        if code and (REFUSED.search(error) or not NO_CAPACITY.search(error)):
            raise UserError(f"{self.name}: {error}")
        return error if code else None

    def delete(self, forget: bool = True) -> bool:
        """Deletes the VM with its queued resource; returns False if there is none.

        Args:
          forget: whether to remove its record and archive, too.
        """
        for seconds in itertools.islice(growing_pauses(), 6):
            is_there, code, error = self.state() is not None, 0, ""
            if is_there and (request := self.spec.get("queued")):
                call = self.call("queued-resources", "delete", request, "--force")
                code, error = gcloud(*call)
            elif is_there:
                code, error = gcloud(*self.call("tpu-vm", "delete", self.name))
            if code == 0:
                if forget and not options.dry_run:
                    self.record.unlink(missing_ok=True)
                    self.record.with_suffix(".tgz").unlink(missing_ok=True)
                if is_there:
                    say(self.name, "deleted")
                return is_there
            if REFUSED.search(error):
                break
            time.sleep(seconds * SCALE)  # a state that passes, such as SUSPENDING
        raise UserError(f"{self.name} is not deleted: {error}")

    def ensure(self) -> bool:
        """Waits until the VM is READY, creating it if needed; returns if it is new."""
        is_new, last, pauses = False, None, growing_pauses()
        while (state := self.state()) != "READY":
            if state in UNUSABLE:
                raise UserError(f"{self.name} is {state}: start it, or delete it first")
            if state in GONE:
                say(self.name, f"{state}; creates it again")
                self.delete(forget=False)
                if is_new:  # lost before it was used
                    pause(next(pauses))
            if state is None or state in GONE:
                is_new = True
                if reason := self.create():
                    seconds = next(pauses)
                    say(self.name, f"{reason}; tries again in {seconds:.0f} s")
                    pause(seconds)
                continue
            if state != last:
                say(self.name, f"{state}; waits")
            last = state
            pause(CHECK / 4)
        if self.type not in ("", self.spec["type"]):
            raise UserError(
                f"{self.name} exists with --type={self.type}, not "
                f"{self.spec['type']}: choose another name, or delete it first"
            )
        self.save()
        return is_new

    def pack(self) -> None:
        """Packs the checkout as the code to install here."""
        if not options.dry_run:
            pack(self.archive)
            self.save(code=code_version())

    def on_workers(self, *calls: list[str]) -> tuple[int, list[str]]:
        """Makes calls of gcloud, one after another, for all workers at once.

        Returns:
          Exit code and last lines of the first worker that failed, or 0 and none.
        """
        failed: list[tuple[int, list[str]]] = []
        mine: set[subprocess.Popen] = set()

        def follow(worker: int) -> None:
            prefix = self.name if self.num_workers == 1 else f"{self.name}/{worker}"
            for call in calls:
                command = ["gcloud", *call, f"--worker={worker}", "--quiet"]
                if options.dry_run:
                    print(shlex.join(command))
                    continue
                process, lines = start(command, subprocess.STDOUT), deque(maxlen=20)
                mine.add(process)
                for line in process.stdout:
                    if not line.startswith(CHATTER):
                        say(prefix, line)
                        lines.append(line.rstrip())
                code = process.wait()
                children.discard(process)
                if code:  # gcloud's own, if it says so, else that of the command
                    is_gcloud = code < 0 or any("ERROR: (gcloud" in x for x in lines)
                    failed.append((CONNECTION if is_gcloud else code, list(lines)))
                    return

        workers = range(self.num_workers)
        threads = [threading.Thread(target=follow, args=(k,)) for k in workers]
        for thread in threads:
            thread.start()
        seconds = 0  # since a worker failed
        while any(thread.is_alive() for thread in threads):
            deadline = time.monotonic() + CHECK * SCALE
            for thread in threads:
                thread.join(max(0, deadline - time.monotonic()))
            seconds += CHECK if failed else 0
            if any(thread.is_alive() for thread in threads) and (
                seconds > GRACE or self.is_lost()
            ):
                kill(mine)
        return failed[0] if failed else (0, [])

    def run(self, command: list[str] | None, install: bool = False) -> int:
        """Runs a command until it has ended, over preemptions; returns its exit code.

        Args:
          command: words of the command; None only installs.
          install: whether to install the code even if the VM has some.
        """
        target = f"{self.name}:attention-lab.tgz"
        copy = self.call("tpu-vm", "scp", str(self.archive), target)
        ssh = self.call("tpu-vm", "ssh", self.name)
        ssh += [f"--ssh-flag=-o{option}" for option in SSH_OPTIONS]
        attempt, pauses, failures = secrets.token_hex(4), growing_pauses(), 0
        while True:
            install |= self.ensure()
            if stop.is_set():  # the study was completed while this VM was created
                raise StoppedError
            began, step = time.monotonic(), "installation" if install else "command"
            if install:
                if not self.archive.exists():
                    self.pack()
                say(self.name, f"installs on {self.num_workers} worker(s)")
                code, lines = self.on_workers(copy, [*ssh, f"--command={INSTALL}"])
                install = code != 0
            if not install and command is not None:
                step, words = "command", shlex.join([attempt, *command])
                code, lines = self.on_workers([*ssh, f"--command={RUN}{words}"])
            if code == 0:
                return 0
            if step == "command" and code == NOT_INSTALLED:
                install, attempt = True, secrets.token_hex(4)
                continue
            pause(CHECK / 2)  # a VM that is being preempted is READY a while longer
            state = self.state()
            if state != "READY" or (step == "command" and code == AGAIN):
                reason = (
                    "ended with 75" if state == "READY" else f"is {state or 'gone'}"
                )
                say(self.name, f"{reason}; the {step} is started again")
                attempt, failures = secrets.token_hex(4), 0
                continue
            failures = 1 if time.monotonic() - began > 600 else failures + 1
            is_final = step == "command" and code != CONNECTION
            if is_final or failures >= CONNECTIONS:
                say(self.name, f"the {step} ended with {code}; its last lines:")
                for line in lines:
                    say(self.name, f"  {line}")
                return code
            say(self.name, f"{step}: {code}, attempt {failures} of {CONNECTIONS}")
            pause(next(pauses))


def workdir(command: list[str]) -> str:
    """Returns the value of --workdir in a command, "" if it has none."""
    found = re.search(r"\0--workdir[=\0]([^\0]*)", "\0" + "\0".join(command))
    return found[1] if found else ""


def create(command: list[str]) -> int:
    """Creates a TPU VM or slice, or reuses the one of this name."""
    is_new = Vm(options.name).ensure()
    say(options.name, "is READY" if is_new else "is READY; it existed already")
    return 0


def install(command: list[str]) -> int:
    """Copies this checkout to all workers and installs its requirements."""
    vm = Vm(options.name)
    vm.pack()
    return vm.run(None, install=True)


def run(command: list[str]) -> int:
    """Runs the command after -- on all workers, over preemptions."""
    vm, folder = Vm(options.name), workdir(command)
    if folder and "://" not in folder:
        say(vm.name, f"warning: --workdir={folder} is lost with the VM; use gs://")
    if vm.spec.get("code") not in (None, code_version()):
        say(vm.name, "warning: this checkout differs from the code that is installed")
    try:
        return vm.run(command)
    except KeyboardInterrupt:
        kill(children)
        say(vm.name, "a command that has started goes on there; the same call stops")
        say(vm.name, f"and resumes it, scripts/tpu.sh delete {vm.name} ends it")
        return 130


def copy(command: list[str]) -> int:
    """Copies a run directory from its bucket or from the disk of worker 0."""
    call = ["storage", "cp", "--recursive", options.run.rstrip("/"), options.dest]
    if not options.run.startswith("gs://"):
        source = f"{options.name}:attention-lab/{options.run}"
        words = "--recurse", source, options.dest, "--worker=0"
        call = Vm(options.name).call("tpu-vm", "scp", *words)
    if not options.dry_run:
        Path(options.dest).mkdir(parents=True, exist_ok=True)
    code, error = gcloud(*call)
    if code:
        raise UserError(f"{options.run} is not copied: {error}")
    say(options.name, f"{options.run} is in {options.dest}")
    return 0


def delete(command: list[str]) -> int:
    """Deletes TPU VMs and slices."""
    for vm in [Vm(name) for name in options.names]:
        if not vm.delete():
            raise UserError(f"{vm.name} does not exist in {vm.spec['zone']}")
    return 0


def list_all(command: list[str]) -> int:
    """Lists the TPU VMs and slices of all zones, or of one."""
    place = [f"--zone={options.zone or '-'}"]
    place += [f"--project={options.project}"] if options.project else []
    code, output = gcloud("compute", "tpus", "tpu-vm", "list", *place)
    if code:
        raise UserError(output)
    print(output, end="")
    return 0


def sweep_name(command: list[str]) -> str:
    """Returns the name of a sweep's VMs, made from its folder.

    Raises:
      UserError: the folder is not in a bucket, or there are no workers.
    """
    folder = workdir(command).rstrip("/")
    if not folder.startswith("gs://"):
        raise UserError(
            f"--workdir={folder or '(missing)'} must be in a bucket, which all VMs "
            "reach: --workdir=gs://BUCKET/SWEEP after the --"
        )
    if options.workers < 1:
        raise UserError(f"--workers={options.workers} must be at least 1")
    stem = re.sub(r"[^a-z0-9]+", "-", folder.split("/")[-1].lower()).strip("-")[:40]
    digest = hashlib.sha256(folder.encode()).hexdigest()[:4]
    return f"sweep-{stem}-{digest}"


def sweep(command: list[str]) -> int:
    """Runs the command after -- on many VMs, then deletes them."""
    name = sweep_name(command)
    prefix = options.name or name
    archive, numbers = RECORDS / f"{prefix}.tgz", range(options.workers)
    left = {f"{prefix}-{k}": Vm(f"{prefix}-{k}", archive) for k in numbers}
    codes: dict[str, int | None] = {}  # None: was not needed any more

    def remove(vm: Vm) -> None:
        try:
            vm.delete()
            del left[vm.name]
        except (UserError, StoppedError) as error:
            say(vm.name, f"error: {error}")

    def work(vm: Vm) -> None:
        try:
            codes[vm.name] = vm.run(command, install=True)
            if codes[vm.name] == 0 and not options.dry_run:
                stop.set()  # the study is complete: nobody needs to wait for capacity
        except StoppedError:
            codes[vm.name] = None
        except UserError as error:
            say(vm.name, f"error: {error}")
            codes[vm.name] = 2
        if not is_interrupted and not options.keep:
            remove(vm)

    is_interrupted = False
    next(iter(left.values())).pack()
    threads = [threading.Thread(target=work, args=(vm,)) for vm in left.values()]
    try:
        for thread in threads:
            thread.start()
            if options.dry_run:
                thread.join()  # one after another, for an output in order
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        is_interrupted = True
        stop.set()
        while any(thread.is_alive() for thread in threads):
            kill(children)
            time.sleep(0.1)
        if left and not options.keep and confirm(f"This deletes {', '.join(left)}."):
            for vm in list(left.values()):
                remove(vm)
    if left and not options.dry_run:
        names = " ".join(left)
        say(prefix, f"left, at your cost; to delete: scripts/tpu.sh delete {names}")
    if is_interrupted:
        return 130
    failed = {name: code for name, code in codes.items() if code}
    is_complete = 0 in codes.values()
    say(prefix, f"the study is {'complete' if is_complete else 'not complete'}")
    for name, code in failed.items():
        say(prefix, f"{name} failed with {code}")
    return 0 if is_complete and not failed else next(iter(failed.values()), 1)


def confirm(consequence: str) -> bool:
    """Asks whether to go on; without a terminal, the answer is no."""
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        question = f"{consequence} Trials resume from the bucket. Go on? [y/N] "
        return input(question).strip().lower() in ("y", "yes")
    return False


SUBCOMMANDS = {
    "create": create,
    "install": install,
    "run": run,
    "copy": copy,
    "delete": delete,
    "list": list_all,
    "sweep": sweep,
}


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one line."""

    def error(self, message: str):
        """Exits with code 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def parse(arguments: list[str]) -> None:
    """Reads the flags of a subcommand into `options`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("tpu.sh", description=__doc__, formatter_class=raw)
    subparsers = parser.add_subparsers(
        dest="subcommand", required=True, metavar="SUBCOMMAND"
    )
    for name, function in SUBCOMMANDS.items():
        text = function.__doc__
        sub = subparsers.add_parser(name, help=text, description=text)
        flag = sub.add_argument
        if name in ("create", "install", "run", "copy"):
            flag("name", metavar="NAME")
        if name == "copy":
            flag("run", metavar="RUN", help="gs://BUCKET/DIR or a path on the VM")
            flag("dest", metavar="DEST", nargs="?", default="runs")
        if name == "delete":
            flag("names", metavar="NAME", nargs="+")
        if name in ("create", "sweep"):
            flag("--type", help="accelerator type, as v5litepod-8 or v6e-16")
            flag("--version", help="software of the VM; by default that of the type")
            flag("--spot", action="store_true", help="preemptible, at a lower price")
            flag("--queued", action="store_true", help="wait in Google's queue")
        if name == "sweep":
            flag("--workers", type=int, required=True, help="number of VMs")
            flag("--name", help="beginning of the VMs' names")
            flag("--keep", action="store_true", help="delete no VM")
        flag("--zone", help="by default that of create")
        flag("--project", help="by default that of gcloud")
        flag("--dry_run", action="store_true", help="print calls of gcloud, no more")
    parser.parse_args(arguments, namespace=options)


def main() -> int:
    """Returns the exit code of a subcommand."""
    arguments, command = sys.argv[1:], []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, command = arguments[:cut], arguments[cut + 1 :]
    parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if command and options.subcommand not in ("run", "sweep"):
            raise UserError(f"{options.subcommand} takes no command after --")
        if not command and options.subcommand in ("run", "sweep"):
            raise UserError(
                "a command is missing: -- python train.py --config=FILE ..."
            )
        if not (options.dry_run or shutil.which("gcloud")):
            raise UserError("gcloud is not installed: https://cloud.google.com/sdk")
        return SUBCOMMANDS[options.subcommand](command)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kill(children)
        print("interrupted; a VM that was asked for may still come: tpu.sh list")
        return 130


if __name__ == "__main__":
    sys.exit(main())

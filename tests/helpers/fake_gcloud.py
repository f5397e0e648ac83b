"""Stand-in for gcloud: VMs are folders, and their workers' commands are processes.

Folders below FAKE_CLOUD:
  calls.jsonl       words of every call
  vms/NAME          node.json (as described), worker-K (home directory of a worker)
  queue/NAME        how many descriptions later a queued resource gets its VM
  errors/VERB-NAME  lines that are the errors of the next calls of VERB
  drop/NAME         existing: the next connection is lost once
  buckets/BUCKET    files of gs://BUCKET
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

CLOUD = Path(os.environ["FAKE_CLOUD"])
WORDS = [word for word in sys.argv[1:] if not word.startswith("--")]
FLAGS = dict(
    word[2:].partition("=")[::2] for word in sys.argv[1:] if word.startswith("--")
)


def fail(message: str, code: int = 1):
    """Ends with an error as gcloud writes it."""
    print(f"ERROR: (gcloud.{'.'.join(WORDS[:4])}) {message}", file=sys.stderr)
    sys.exit(code)


def node_file(name: str) -> Path:
    """Returns the file that describes a VM."""
    return CLOUD / "vms" / name / "node.json"


def node(name: str) -> dict:
    """Returns a VM's description."""
    if not node_file(name).exists():
        fail(f"NOT_FOUND: Resource 'nodes/{name}' was not found")
    return json.loads(node_file(name).read_text())


def make_node(name: str, accelerator: str, **more) -> None:
    """Creates a VM with a worker for every 8 chips."""
    num_workers = max(1, int(accelerator.split("-")[1]) // 8)
    for worker in range(num_workers):
        (CLOUD / "vms" / name / f"worker-{worker}").mkdir(parents=True)
    about = {
        "state": "READY",
        "acceleratorType": f"projects/p/{accelerator}",
        "runtimeVersion": FLAGS.get("version", "v2-of-queue"),
        "schedulingConfig": {"spot": True} if "spot" in FLAGS else {},
        "networkEndpoints": [{}] * num_workers,
    }
    replace(node_file(name), json.dumps(about | more))


def replace(file: Path, text: str) -> None:
    """Writes a file in one step."""
    scratch = file.with_suffix(f".{os.getpid()}")
    scratch.write_text(text)
    scratch.rename(file)


def end_processes(name: str) -> None:
    """Ends the processes of a VM that is lost."""
    for file in (CLOUD / "vms" / name).glob("worker-*/attention-lab/.cache/*/pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(file.read_text()), signal.SIGKILL)


def next_error(verb: str, name: str) -> None:
    """Fails with the next error that a test asked for."""
    file = CLOUD / "errors" / f"{verb}-{name}"
    if file.exists() and (lines := file.read_text().splitlines()):
        replace(file, "\n".join(lines[1:]))
        fail(lines[0])


def queued(verb: str, name: str) -> None:
    """Creates, describes and deletes queued resources."""
    file = CLOUD / "queue" / name
    if verb == "create":
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"2 {FLAGS['accelerator-type']}")
    elif not file.exists():
        fail(f"NOT_FOUND: Resource 'queuedResources/{name}' was not found")
    elif verb == "delete":
        file.unlink()
        delete(name)
    else:
        left, accelerator = file.read_text().split()
        file.write_text(f"{int(left) - 1} {accelerator}")
        if left == "0":
            make_node(name, accelerator, queuedResource=f"queuedResources/{name}")
        state = "ACTIVE" if left == "0" else "WAITING_FOR_RESOURCES"
        print(json.dumps({"state": {"state": state}}))


def delete(name: str) -> None:
    """Deletes a VM."""
    end_processes(name)
    shutil.rmtree(CLOUD / "vms" / name, ignore_errors=True)


def remote(path: str) -> Path:
    """Returns the file of NAME:PATH on a worker, or of a local path."""
    name, colon, rest = path.partition(":")
    if not colon:
        return Path(path)
    return CLOUD / "vms" / name / f"worker-{FLAGS['worker']}" / rest


def ssh(name: str) -> int:
    """Runs a command in a worker's home directory until it ends or the VM is lost."""
    state = node(name)["state"]
    if state != "READY":
        fail(f'This TPU has terminal state "{state}", so it cannot be used anymore.')
    print("Using ssh batch size of 1. Attempting to SSH", file=sys.stderr)
    home = CLOUD / "vms" / name / f"worker-{FLAGS['worker']}"
    process = subprocess.Popen(
        ["bash", "-c", FLAGS["command"]],
        cwd=home,
        env={**os.environ, "HOME": str(home)},
        process_group=0,
    )

    def end(*_):
        os.killpg(process.pid, signal.SIGKILL)
        sys.exit(143)

    signal.signal(signal.SIGTERM, end)
    drop = CLOUD / "drop" / name
    while process.poll() is None:
        time.sleep(0.02)
        if drop.exists() and any(home.glob("attention-lab/.cache/*/attempt")):
            drop.unlink()
            os.killpg(process.pid, signal.SIGKILL)  # not what it has detached
            process.wait()
            print("Retrying: SSH command error")
            return ssh(name)
        with contextlib.suppress(FileNotFoundError):
            if json.loads(node_file(name).read_text())["state"] == "READY":
                continue
        end_processes(name)
        os.killpg(process.pid, signal.SIGKILL)
        fail("[/usr/bin/ssh] exited with return code [255].", 255)
    return process.returncode


def main() -> int:
    """Returns the exit code of a call."""
    with open(CLOUD / "calls.jsonl", "a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    if WORDS[0] == "storage":
        source = CLOUD / "buckets" / WORDS[2].removeprefix("gs://")
        if not source.exists():
            fail("The following URLs matched no objects or files")
        shutil.copytree(source, Path(WORDS[3], source.name), dirs_exist_ok=True)
        return 0
    group, verb, *rest = WORDS[2:]
    if verb == "list":
        print("NAME", *sorted(path.name for path in (CLOUD / "vms").glob("*")))
        return 0
    name = next((word for word in rest if ":" in word), rest[0]).partition(":")[0]
    next_error(verb, name)
    if group == "queued-resources":
        queued(verb, name)
    elif verb == "create":
        make_node(name, FLAGS["accelerator-type"])
    elif verb == "describe":
        print(json.dumps(node(name)))
    elif verb == "delete":
        node(name)
        delete(name)
    elif verb == "ssh":
        return ssh(name)
    elif verb == "scp" and "recurse" in FLAGS:
        source, target = map(remote, rest)
        shutil.copytree(source, target / source.name, dirs_exist_ok=True)
    elif verb == "scp":
        shutil.copy(*map(remote, rest))
    return 0


if __name__ == "__main__":
    sys.exit(main())

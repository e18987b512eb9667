"""Run inside a private namespace by test_nodes.py: a sweep over two machines, one of which is lost on the way.

The second machine has processes, shared memory, host name and temporary folders of its own: nothing on a disk is shared
with the first. What it has received is asked of its own raylet.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from dnad_ray.run_folder.reading import read_run

SECONDS = 200
HERE = Path("/run/t")
URL = "ftp://127.0.0.1:2121/demo"
HEAD = "ray start --head --port=6379 --num-cpus=1 --include-dashboard=false --disable-usage-stats"
# The token comes by the environment, for no home is shared either; what the test has in /run/t is hidden last.
SECOND = """
hostname second
mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray  # not /tmp: the checkout may lie there
mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs /run/t
exec ray start --address=127.0.0.1:6379 --num-cpus=1 --block
"""
NUM_NODES = """
import ray
ray.init("127.0.0.1:6379", log_to_driver=False, logging_level="ERROR")
print(sum(node["Alive"] for node in ray.nodes()))
"""
PRIVATE = ("unshare", "--pid", "--mount", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc")


def wait_for(found, what):
    until = time.monotonic() + SECONDS
    while not (result := found()):
        if time.monotonic() > until:
            sys.exit(f"waited in vain for {what}")
        time.sleep(0.1)
    return result


def both_have_joined():
    said = subprocess.run([sys.executable, "-c", NUM_NODES], capture_output=True, text=True, check=True)
    return int(said.stdout) == 2


def status():
    """The status of each trial, as written on the first machine's disk, where the file server has it."""
    found = {}
    for file in (HERE / "out" / "demo" / "trials").glob("*/status.json"):
        found[file.parent.name] = json.loads(file.read_text())
    return found


def of_second(state):
    return sorted(n for n, entry in status().items() if (entry["host"], entry["state"]) == ("second", state))


def received_by(machine):
    """Chunks of objects that the raylet of a machine has received from others, by its own count."""
    found = subprocess.run(["pgrep", "-x", "raylet"], capture_output=True, text=True, check=True)
    for process in (Path("/proc", text) for text in found.stdout.split()):
        if (process / "ns/mnt").readlink() == Path(f"/proc/{machine.pid}/ns/mnt").readlink():
            # Not by session_latest: a link with an absolute path would lead back to the first machine's folder.
            (file,) = process.glob("root/tmp/ray/session_2*/logs/debug_state.txt")
            return int(re.search(r"num chunks received total: (\d+)", file.read_text())[1])
    raise AssertionError("the second machine has no raylet")


def main():
    server = ["--write", "--interface", "127.0.0.1", "--port", "2121", "--directory", str(HERE / "out")]
    subprocess.Popen([sys.executable, "-m", "pyftpdlib", *server], stderr=subprocess.DEVNULL)
    subprocess.run(HEAD.split(), check=True)
    second = subprocess.Popen([*PRIVATE, "bash", "-ec", SECOND])
    # How many trials run at once is settled when the sweep begins: both machines have to be there.
    wait_for(both_have_joined, "the second machine to join the first")
    sweep = subprocess.Popen(
        ["dnad-ray", "sweep", str(HERE / "mine.yaml"), "--out", URL, "--address", "127.0.0.1:6379"]
    )

    def one_has_ended_and_one_runs():
        if sweep.poll() is not None:
            sys.exit(f"the sweep ended too early, with {sweep.returncode}")
        running = of_second("running")
        return (
            of_second("finished")
            and running
            and [
                name
                for name in running
                if list((HERE / "out/demo/trials" / name / "checkpoints").glob("*/manifest.json"))
            ]
        )

    lost = wait_for(one_has_ended_and_one_runs, "the second machine to be in the middle of its second trial")
    observed = {"lost": lost, "finished_on_second": of_second("finished"), "chunks": received_by(second)}
    # Read before the loss: the next attempt must begin no earlier than here.
    observed["checkpoints"] = sorted(
        int(file.parent.name) for file in (HERE / "out/demo/trials" / lost[0] / "checkpoints").glob("*/manifest.json")
    )
    observed["before"] = {
        n: [r["step"] for r in read_run(HERE / "out/demo").snapshots if r["trial"] == n] for n in lost
    }
    os.kill(second.pid, signal.SIGKILL)
    second.wait()
    began = time.monotonic()
    observed["code"] = sweep.wait(timeout=SECONDS)
    observed["seconds_after_loss"] = time.monotonic() - began
    (HERE / "observed.json").write_text(json.dumps(observed))


if __name__ == "__main__":
    main()

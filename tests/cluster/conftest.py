"""A machine of the test's own: namespaces in which Ray can be started, stopped and killed without touching the host."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Processes, network, shared memory, host name and mounts are private; all of it ends with the test.
UNSHARE = ("unshare", "--pid", "--net", "--mount", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc")
# /t: short, because a socket's path has 107 bytes. What Ray leaves in /tmp and sshd wants in /run is private too.
# Homes of both sides lie in /t, so nobody's keys, tokens and ~/.ray are read or written.
PROLOGUE = """
set -euo pipefail
mount --make-rprivate /
ip link set lo up
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd /run/t && mount --bind "$FOLDER" /run/t
{ hide_tmp }
mkdir -p /run/t/home /run/t/client
sed "s|^\\(root:[^:]*:[^:]*:[^:]*:[^:]*\\):[^:]*:.*|\\1:/run/t/home:/bin/bash|" /etc/passwd > /run/t/passwd
mount --bind /run/t/passwd /etc/passwd
export HOME=/run/t/client
cd "$REPOSITORY"
"""


@pytest.fixture
def inside(repository, tmp_path):
    """Run a bash script in a private namespace whose /run/t is the test's folder; returns the ended process."""
    missing = [program for program in ("unshare", "ip", "mount") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("needs root: sshd and mounts in a namespace")
    probe = subprocess.run([*UNSHARE, "mount", "--make-rprivate", "/"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"this machine gives no namespaces: {probe.stderr.strip()}")
    is_in_tmp = any(Path(path).resolve().is_relative_to("/tmp") for path in (repository, sys.prefix))

    def run(script, seconds, **environment):
        hidden = "/tmp/ray" if is_in_tmp else "/tmp"
        prologue = PROLOGUE.replace("{ hide_tmp }", f"mkdir -p {hidden} && mount -t tmpfs tmpfs {hidden}")
        keep = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
        folders = [str(Path(sys.executable).parent), "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        process = subprocess.Popen(
            [*UNSHARE, "bash", "-c", prologue + script],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={
                **keep,
                "PATH": ":".join(folders),
                "PYTHONPATH": str(repository),
                "FOLDER": str(tmp_path),
                "REPOSITORY": str(repository),
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_worker_niceness": "0",  # beside other tests, Ray's own 15 leaves trials next to nothing
                **environment,
            },
        )
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # --kill-child: all that was started inside ends with it
            said, _ = process.communicate()
            pytest.fail(f"took more than {seconds} s:\n{said}")
        return process.returncode, said

    return run

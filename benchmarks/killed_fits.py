"""Kill `dnad-ray fit` at random times, continue it, and compare the result with that of an unbroken run.

    python -m benchmarks.killed_fits --kills 5 --seed 0 [--images digits] [--macs 120k] [--set KEY=VALUE ...]

Both runs are without a time budget, so that nothing depends on the machine. Compared are every record of a trained
network but its times, the bytes of all weights, and every recorded network of the search. Exit code 1: they differ.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dnad_ray.run_folder.jobs import read_retrained
from dnad_ray.run_folder.reading import read_run

LEAST_SECONDS = 4.0
"""Before that the run has no folder yet, and begins anew."""
OF_THE_TIME = {"run", "device_seconds", "checksum"}


def start(out: Path, options: argparse.Namespace, *, resume: bool) -> subprocess.Popen[bytes]:
    """Start `fit` in a session of its own."""
    changes = [word for pair in options.set for word in ("--set", pair)]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "dnad_ray", "fit", options.images, "--out", str(out), "--no-ray", "--quiet"),
            *("--under", f"macs={options.macs}", *changes, *(["--resume"] if resume else [])),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def results(out: Path) -> dict[str, Any]:
    """Return what must be equal."""
    records, problems = read_retrained(out)
    contents = read_run(out)
    return {
        "trained": [{name: value for name, value in row.items() if name not in OF_THE_TIME} for row in records],
        "recorded": [
            {name: value for name, value in row.items() if name not in OF_THE_TIME} for row in contents.snapshots
        ],
        "weights": {
            str(path.relative_to(out)): path.read_bytes()
            for folder in ("retrained", "race/retrained")
            for path in sorted(out.glob(f"{folder}/*/*.safetensors"))
        },
        "problems": [*problems, *contents.problems],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the times")
    parser.add_argument("--images", default="digits")
    parser.add_argument("--macs", default="120k")
    parser.add_argument("--set", action="append", default=["space.num_cells=3"], metavar="KEY=VALUE")
    options = parser.parse_args()
    draws = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        unbroken, killed = Path(folder) / "unbroken", Path(folder) / "killed"
        began = time.monotonic()
        if start(unbroken, options, resume=False).wait():
            raise SystemExit("the unbroken run failed")
        whole = time.monotonic() - began
        print(f"unbroken: {whole:.0f} s", flush=True)
        for _ in range(options.kills):
            process = start(killed, options, resume=killed.exists())
            try:
                process.wait(draws.uniform(LEAST_SECONDS, max(LEAST_SECONDS + 1, whole / 2)))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                stages = [name for name in ("teacher", "trials", "race", "retrained") if (killed / name).exists()]
                print(f"killed; begun: {', '.join(stages) or 'nothing'}", flush=True)
            else:
                print("ended before it was killed", flush=True)
        if start(killed, options, resume=True).wait():
            raise SystemExit("the last continuation failed")
        ours, theirs = results(killed), results(unbroken)
        equal = {name: ours[name] == theirs[name] for name in theirs}
        counts = {name: len(theirs[name]) for name in theirs}
        print("equal:", equal, "of", counts)
        if not all(equal.values()) or theirs["problems"]:
            sys.exit(1)


if __name__ == "__main__":
    main()

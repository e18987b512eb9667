"""How much of a sweep's wall time is not trial compute: runs a recipe through the command line and divides.

    python benchmarks/sweep_overhead.py --recipe demo --out runs/overhead

Compute is what the trials themselves measured (training, scoring, counting); capacity is wall time times the trials
that run at once. The rest is imports, teacher, data, Ray, the report, and workers that wait for the last trial.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--out", type=Path, default=Path("runs/overhead"))
    arguments = parser.parse_args()
    began = time.perf_counter()
    command = [sys.executable, "-m", "dnad_ray", "sweep", arguments.recipe, "--out", str(arguments.out)]
    lines: list[tuple[float, str]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            lines.append((time.perf_counter() - began, line))
            print(line, end="")
    if process.returncode:
        sys.exit(process.returncode)
    wall = time.perf_counter() - began
    status = [json.loads(file.read_text()) for file in arguments.out.glob("trials/*/status.json")]
    compute = sum(entry["device_seconds"] for entry in status)
    # From the estimate, which is the last thing before Tune starts, to the last trial's end: the parallel part.
    start = next(second for second, line in lines if line.startswith("sweep: "))
    end = next(second for second, line in lines if "snapshots in" in line)
    cpus = len(os.sched_getaffinity(0))
    result = {
        "wall_seconds": round(wall, 1),
        "sweep_seconds": round(end - start, 1),
        "trial_seconds": round(compute, 1),
        "trials": len(status),
        "cpus": cpus,
        "share_of_wall_not_trial_compute": round(1 - compute / (wall * cpus), 3),
        "share_of_sweep_not_trial_compute": round(1 - compute / ((end - start) * cpus), 3),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

"""How much of a sweep's wall time is not trial compute, and what a second trial beside the first one brings.

    python benchmarks/sweep_overhead.py --json overhead.json     # some 5 minutes for the second question, then 10
    python benchmarks/sweep_overhead.py --small                  # does it work here? the figures mean little

The sweep of the first question has as many trials of the recipe as fill the minutes, going by the trials of the second.

Runs sweeps through the command line, as a user does, and watches their trials by the files they leave. On a machine
that does nothing else.

Compute is what the trials themselves measured: training, scoring, counting. Capacity is wall time times the trials that
may run at once. What is left is broken down, in seconds of capacity:

- before: from the start of the command until a trial begins (imports, images, Ray, the teacher beside the start of
  the workers, the estimate); the teacher's own training, compute of another kind, is shown beside it,
- between: from the end of a trial until the next one begins in its place (a slot that stays empty at the end is tail),
- inside: trials that write, report and wait for Tune,
- tail: places without a trial while the last ones run,
- after: from the end of the last trial to the end of the command (results, report).

What happens before and after is given in wall seconds, step by step, by the lines that the command prints.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

TARGETS = {"overhead": 0.05, "throughput": 1.8}
LOOK_SECONDS = 0.05


class Sweep:
    """A sweep that runs, and when its trials began and ended, in seconds from the start of the command."""

    def __init__(self, recipe: str, out: Path, settings: list[str]) -> None:
        self.out, self.began, self.ended = out, {}, {}
        self.lines: list[tuple[float, str]] = []
        options = [part for setting in settings for part in ("--set", setting)]
        command = [sys.executable, "-m", "dnad_ray", "sweep", recipe, "--out", str(out), *options]
        print("$", *command[1:], flush=True)
        self._start = time.perf_counter()
        done = threading.Event()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            watching = threading.Thread(target=self._watch, args=[done])
            watching.start()
            for line in process.stdout or ():
                self.lines.append((time.perf_counter() - self._start, line))
                print(" ", line, end="", flush=True)
        self.wall = time.perf_counter() - self._start
        done.set()
        watching.join()
        if process.returncode:
            sys.exit(process.returncode)
        self.compute = {name: entry["device_seconds"] for name, entry in self._statuses()}

    def _watch(self, done: threading.Event) -> None:
        while not done.is_set():
            for name, entry in self._statuses():
                now = time.perf_counter() - self._start
                self.began.setdefault(name, now)
                if entry["state"] != "running":
                    self.ended.setdefault(name, now)
            time.sleep(LOOK_SECONDS)

    def _statuses(self) -> list[tuple[str, dict[str, Any]]]:
        files = self.out.glob("trials/*/status.json")
        return [(file.parent.name, json.loads(file.read_text())) for file in files]

    def teacher_seconds(self) -> float:
        """Wall seconds between the first and the last sign of the teacher's training."""
        times = [second for second, line in self.lines if "teacher:" in line]
        return times[-1] - times[0] if times else 0.0

    def _at(self, text: str, last: bool = False) -> float | None:
        """Second at which the first, or the last, line with a text came."""
        times = [second for second, line in self.lines if text in line]
        return times[-1 if last else 0] if times else None

    def steps(self) -> dict[str, float]:
        """Wall seconds of what happens before the first trial and after the last one, in order; one after the other."""
        first, last = min(self.began.values()), max(self.ended.values())
        before = [
            ("imports, images", self._at("training and")),
            ("Ray", self._at("teacher:")),
            ("teacher, beside it workers", self._at("teacher:", last=True)),
            ("estimate", self._at("sweep: about")),
            ("rest until a trial begins", first),
        ]
        after = [
            ("Ray ends, snapshots gathered", self._at(" snapshots in ")),
            ("front, report", self._at("report: ")),
            ("end of the command", self.wall),
        ]
        found: dict[str, float] = {}
        for begin, marks in ((0.0, before), (last, after)):
            now = begin
            for name, second in marks:
                if second is not None:
                    found[name], now = round(second - now, 2), second
        return found

    def parallel_seconds(self) -> float:
        """Wall seconds from the beginning of the first trial to the end of the last."""
        return max(self.ended.values()) - min(self.began.values())

    def breakdown(self, places: int) -> dict[str, Any]:
        """Return where the capacity went; see the module."""
        first, last = min(self.began.values()), max(self.ended.values())
        # Whoever begins takes the place that has been free for longest; the sums do not depend on who takes which.
        free, between = [first] * places, 0.0
        for name in sorted(self.began, key=self.began.__getitem__):
            free.sort()
            between += self.began[name] - free[0]
            free[0] = self.ended[name]
        inside = sum(self.ended[name] - self.began[name] - self.compute[name] for name in self.compute)
        capacity, compute = self.wall * places, sum(self.compute.values())
        parts = {
            "before": first * places,
            "between": between,
            "inside": inside,
            "tail": sum(last - second for second in free),
            "after": (self.wall - last) * places,
        }
        return {
            "wall_seconds": round(self.wall, 1),
            "places": places,
            "trials": len(self.compute),
            "trial_compute_seconds": round(compute, 1),
            "teacher_seconds": round(self.teacher_seconds(), 1),
            "not_compute_seconds": {name: round(value, 1) for name, value in parts.items()},
            "share_not_trial_compute": round(1 - compute / capacity, 4),
            "share_by_part": {name: round(value / capacity, 4) for name, value in parts.items()},
            "wall_seconds_by_step": self.steps(),
            "seconds_per_trial": {name: round(parts[name] / len(self.compute), 3) for name in ("between", "inside")},
            "share_teacher": round(self.teacher_seconds() / capacity, 4),
            "share_neither_trial_nor_teacher": round(1 - (compute + self.teacher_seconds()) / capacity, 4),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the long sweep")
    parser.add_argument("--trials", type=int, help="of the long sweep, instead of minutes")
    parser.add_argument("--throughput-trials", type=int, default=4, help="of the two sweeps that are compared")
    parser.add_argument("--small", action="store_true", help="the recipe smoke with a few trials")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.recipe, arguments.trials, arguments.throughput_trials = "smoke", arguments.trials or 6, 2
    places = len(os.sched_getaffinity(0))
    common = [*arguments.settings, "sweep.cpus_per_trial=1"]
    result: dict[str, Any] = {"recipe": arguments.recipe, "settings": arguments.settings, "cpus": places}
    folder = Path(tempfile.mkdtemp(prefix="sweep-overhead-"))
    try:
        # What the first trials asked the teacher is kept for the later ones: more of it is, the fewer run at a time.
        settings = [*common, f"sweep.num_trials={arguments.throughput_trials}", "distill.teacher.cache=never"]
        one, two = (
            Sweep(arguments.recipe, folder / f"{number}-at-once", [*settings, f"sweep.max_concurrent={number}"])
            for number in (1, 2)
        )
        result["throughput"] = {
            "trials": arguments.throughput_trials,
            "seconds_one_at_a_time": round(one.parallel_seconds(), 1),
            "seconds_two_at_a_time": round(two.parallel_seconds(), 1),
            "ratio": round(one.parallel_seconds() / two.parallel_seconds(), 3),
            # Without the unequal ends of the trials: twice what a trial takes alone over what it takes beside another.
            "ratio_of_compute": round(2 * sum(one.compute.values()) / sum(two.compute.values()), 3),
        }
        print(json.dumps(result["throughput"]), flush=True)
        per_trial = sum(two.compute.values()) / len(two.compute)
        trials = arguments.trials or max(places, round(arguments.minutes * 60 * places / per_trial))
        settings = [*common, f"sweep.num_trials={trials}"]
        result["overhead"] = Sweep(arguments.recipe, folder / "long", settings).breakdown(places)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=1))
    for name, key, better in (
        ("overhead", "share_not_trial_compute", "at most"),
        ("throughput", "ratio", "at least"),
    ):
        print(f"{name}: {result[name][key]:.3f}, wanted {better} {TARGETS[name]}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

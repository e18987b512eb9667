"""The teacher's share of a step of the dense supernet: nobody imitated, the teacher asked, its kept outputs read.

    python benchmarks/teacher_share.py --json teacher-share.json

Digits in their own size and enlarged, the demo's search space, batches of 64; one thread. The three are taken in turns,
a few steps at a time, and compared by the median CPU time of a step, so that a busy machine disturbs all alike. `asked
share` is what the teacher and the imitation loss cost on top of a step without a teacher, as a share of the step;
`teacher alone` is one call of the teacher in inference mode, and in the same mode without its bookkeeping (no_grad).
`varied` keeps a block per step, as augmented images need it; what it costs to fill is measured apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from dnad_ray.config.recipes import recipe_named
from dnad_ray.config.run import RunConfig, with_overrides
from dnad_ray.data.images import Augmentation
from dnad_ray.data.loading import load_data
from dnad_ray.distill.teacher_cache import open_cache
from dnad_ray.distill.teacher_sources import make_teacher
from dnad_ray.search.loop import SearchState

CASES: list[tuple[str, int, str, dict[str, Any]]] = [
    ("derived C=12", 8, "logits", {"init_channels": 12}),
    ("derived C=12", 8, "logits+features", {"init_channels": 12}),
    ("derived C=36", 8, "logits", {"init_channels": 36}),
    ("resnet18", 8, "logits", {"source": "torchvision", "model": "resnet18"}),
    ("derived C=12", 32, "logits", {"init_channels": 12}),
    ("derived C=36", 32, "logits", {"init_channels": 36}),
    ("derived C=36", 32, "logits+features", {"init_channels": 36}),
]
ROUND = 3


def config_of(size: int, kind: str, teacher: dict[str, Any]) -> RunConfig:
    overrides = {"data.image_size": size, "distill.kind": kind, "distill.temperature": None}
    # What it says is of no matter here, so it learns for one epoch only, or not at all.
    teacher = {"epochs": 1} | teacher | ({"train": False} if "model" in teacher else {})
    return with_overrides(recipe_named("demo"), overrides | {f"distill.teacher.{k}": v for k, v in teacher.items()})


def seconds(call) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def measure(name: str, size: int, kind: str, settings: dict[str, Any], num_steps: int) -> dict[str, Any]:
    config = config_of(size, kind, settings)
    data = load_data(config.data)
    teacher = make_teacher(config, data, torch.device("cpu"))
    varied = dataclasses.replace(data, augmentation=Augmentation(pad=1))
    alone = with_overrides(config, {"distill.kind": "none", "distill.temperature": None})
    with tempfile.TemporaryDirectory() as folder:
        states = {
            "alone": SearchState.start(alone, data, run="r", trial="t"),
            "asked": SearchState.start(config, data, teacher, run="r", trial="t"),
            "kept": SearchState.start(config, data, teacher, run="r", trial="t"),
            "kept, varied": SearchState.start(config, varied, teacher, run="r", trial="t"),
        }
        filling = {}
        for mode in ("kept", "kept, varied"):
            state = states[mode]
            state.cache = open_cache(Path(folder), config, state.data, teacher, state.batches, is_shared=True)
            if state.cache is not None:
                steps = range(1 if mode == "kept" else num_steps + ROUND)
                filling[mode] = sum(
                    seconds(lambda step=step, state=state: state.cache.target(step, state.batches.batch(step)[0]))
                    for step in steps
                )
        taken: dict[str, list[float]] = {mode: [] for mode in states}
        for first in range(0, num_steps, ROUND):
            for mode, state in states.items():
                for step in range(first, first + ROUND):

                    def take(step=step, state=state):
                        images, labels = state.batches.batch(step)
                        target = None if state.cache is None else state.cache.target(step, images)
                        state.learner.step(images, labels, None, target=target)

                    taken[mode].append(seconds(take))
        images, _ = states["asked"].batches.batch(0)
        calls = {"inference mode": [], "no_grad": []}
        for _ in range(num_steps):
            calls["inference mode"].append(seconds(lambda: teacher.predict(images)))
            with torch.no_grad():
                calls["no_grad"].append(seconds(lambda: teacher.network(images)))
        bytes_kept = {file.suffix: file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()}
    medians = {mode: statistics.median(values[ROUND:]) for mode, values in taken.items()}
    return {
        "teacher": name,
        "size": size,
        "kind": kind,
        "milliseconds": {mode: 1e3 * value for mode, value in medians.items()},
        "share": {mode: 1 - medians["alone"] / value for mode, value in medians.items()},
        "calls": {mode: 1e3 * statistics.median(values) for mode, values in calls.items()},
        "filling_seconds": filling,
        "bytes": bytes_kept,
        "images": len(data.train),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--cases", type=int, nargs="*", default=list(range(len(CASES))))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'teacher':<14} {'size':>4} {'kind':<16} {'alone ms':>8} {'asked ms':>8} {'kept ms':>8} {'varied':>8} "
        f"{'asked share':>11} {'kept share':>10} {'call ms':>8} {'no_grad':>8} {'MB':>6}"
    )
    rows = []
    for index in options.cases:
        row = measure(*CASES[index], options.steps)
        rows.append(row)
        ms, share = row["milliseconds"], row["share"]
        print(
            f"{row['teacher']:<14} {row['size']:>4} {row['kind']:<16} {ms['alone']:>8.1f} {ms['asked']:>8.1f} "
            f"{ms['kept']:>8.1f} {ms['kept, varied']:>8.1f} {share['asked']:>11.1%} {share['kept']:>10.1%} "
            f"{row['calls']['inference mode']:>8.2f} {row['calls']['no_grad']:>8.2f} "
            f"{row['bytes'].get('.all', 0) / 1e6:>6.2f}",
            flush=True,
        )
        if options.json is not None:
            options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

"""What imitation is worth to a search: hypervolume against KD temperature, KD weight and imitation kind.

    python benchmarks/distillation.py --json distillation.json                    # embedded digits
    python benchmarks/distillation.py --json distillation.json --folder FOLDER    # images, one folder per class

Real searches, each on one thread, several at a time. All of them imitate one teacher (or nobody) and differ by one
setting and the seed. A search counts with the hypervolume of its snapshots in (proxy error, MACs): the share of the box
between zero and (error of chance, MACs of the dense network). Settings are compared seed by seed with the search
without a teacher. What is in the JSON file already is not run again.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from analysis import hypervolume_share
from dnad_ray.config.distill import KINDS
from dnad_ray.config.recipes import recipe_named
from dnad_ray.config.run import RunConfig, with_overrides
from dnad_ray.data.loading import load_data
from dnad_ray.distill.teacher import load_teacher, read_teacher, save_teacher
from dnad_ray.distill.teacher_sources import make_teacher
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.search.loop import SearchState, search
from dnad_ray.storage.files import write_bytes
from dnad_ray.storage.places import place
from search_spaces.json_reader import parse_json

ALONE: dict[str, Any] = {"distill.kind": "none"}
STUDIES: dict[str, list[dict[str, Any]]] = {
    "temperature": [{"distill.kind": "logits", "distill.temperature": value} for value in (1.0, 2.0, 4.0, 8.0, 16.0)],
    "weight": [{"distill.kind": "logits", "distill.weight": value} for value in (0.1, 0.3, 1.0, 3.0)],
    "kind": [{"distill.kind": kind} for kind in KINDS],
}
BASE: dict[str, Any] = {"distill.weight": 1.0}
SMALL: dict[str, Any] = {
    "distill.teacher.epochs": 40,
    "space.num_nodes": 2,
    "train.epochs": 20,
    "shrink.rate": 0.12,
    "shrink.floor.operations": 10,
}


def base_config(folder: str | None) -> RunConfig:
    """Return the search that all settings change."""
    overrides: dict[str, Any] = {"distill.kind": "logits", "distill.temperature": None, **BASE, **SMALL}
    if folder is not None:
        overrides |= {
            "data.name": "imagefolder",
            "data.root": folder,
            "data.image_size": 16,
            "data.augment": "none",
            "distill.teacher.init_channels": 16,
        }
    return with_overrides(recipe_named("demo"), overrides)


@functools.cache
def shared(folder: str | None, teachers: str):
    config = base_config(folder)
    file = read_teacher(place(teachers))
    assert file is not None
    return load_data(config.data), load_teacher(file, torch.device("cpu"))


def run(job: tuple[str, dict[str, Any], int, str | None, str]) -> tuple[str, dict[str, Any]]:
    """Run one search; returns its key and what it found."""
    key, setting, seed, folder, teachers = job
    torch.set_num_threads(1)
    data, teacher = shared(folder, teachers)
    config = with_overrides(base_config(folder), {**setting, "seed": seed})
    began = time.process_time()
    state = SearchState.start(config, data, teacher, run="distillation", trial="t")
    found = [event for event in search(state) if isinstance(event, Snapshot)]
    points = [[1 - snapshot.proxy_accuracy, snapshot.macs] for snapshot in found]
    return key, {"setting": setting, "seed": seed, "points": points, "seconds": time.process_time() - began}


def key_of(name: str, setting: dict[str, Any], seed: int) -> str:
    return json.dumps([name, setting, seed])


def table(rows: dict[str, Any], name: str, num_classes: int) -> list[tuple[str, str, dict[str, list[float]]]]:
    """Return for each study and setting hypervolume and lowest error of each seed, and their gains over nobody."""
    mine = {key: row for key, row in rows.items() if key.startswith(f'["{name}"')}
    reference = (1 - 1 / num_classes, max(macs for row in mine.values() for _, macs in row["points"]))
    found = {
        key: (hypervolume_share(row["points"], reference), min(error for error, _ in row["points"]))
        for key, row in mine.items()
    }
    seeds = sorted({row["seed"] for row in mine.values()})
    lines = []
    for study, settings in [("alone", [ALONE]), *STUDIES.items()]:
        for setting in settings:
            done = [seed for seed in seeds if key_of(name, setting, seed) in found]
            pairs = [(found[key_of(name, setting, seed)], found[key_of(name, ALONE, seed)]) for seed in done]
            if pairs:
                words = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in setting.items())
                values = {
                    "hypervolume": [own[0] for own, _ in pairs],
                    "gain": [own[0] - alone[0] for own, alone in pairs],
                    "error": [own[1] for own, _ in pairs],
                    "more": [own[1] - alone[1] for own, alone in pairs],
                }
                lines.append((study, words, values))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where results are kept")
    parser.add_argument("--folder", help="a folder of class folders; without it, digits")
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only-table", action="store_true", help="run nothing")
    options = parser.parse_args()
    name = "digits" if options.folder is None else Path(options.folder).name
    results = parse_json(options.json.read_bytes(), options.json.name) if options.json.exists() else {}
    rows: dict[str, Any] = results.setdefault("rows", {})
    teachers = options.json.with_suffix("").with_name(f"{options.json.stem}-{name}-teacher")
    if not options.only_table:
        config = base_config(options.folder)
        if read_teacher(place(teachers)) is None:
            teacher = make_teacher(config, load_data(config.data), torch.device("cpu"))
            save_teacher(place(teachers), teacher)
            results.setdefault("teachers", {})[name] = {"accuracy": teacher.accuracy, **vars(teacher.calibration)}
        settings = [ALONE, *(setting for study in options.studies for setting in STUDIES[study])]
        jobs = [
            (key_of(name, setting, seed), setting, seed, options.folder, str(teachers))
            for seed in range(options.seeds)
            for setting in settings
        ]
        jobs = [job for job in {job[0]: job for job in jobs}.values() if job[0] not in rows]
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            for key, row in pool.imap_unordered(run, jobs):
                rows[key] = row
                write_bytes(options.json, json.dumps(results).encode())
                print(f"{len(rows)} searches, {row['seconds']:.0f} s: {key}", flush=True)
    print(f"{name}: teacher {results.get('teachers', {}).get(name)}")
    print(
        f"{'study':<12} {'setting':<36} {'n':>2} {'hypervolume':>15} {'gain (from to)':>24} "
        f"{'lowest error':>16} {'more (from to)':>25}"
    )
    for study, words, values in table(rows, name, 10):
        mean = {key: statistics.mean(own) for key, own in values.items()}
        spread = {key: statistics.stdev(own) if len(own) > 1 else 0.0 for key, own in values.items()}
        gain, more, errors = values["gain"], values["more"], f"{mean['error']:>7.2%} +-{spread['error']:>6.2%}"
        print(
            f"{study:<12} {words:<36} {len(gain):>2} {mean['hypervolume']:>7.3f} +-{spread['hypervolume']:.3f} "
            f"{mean['gain']:>+8.3f} ({min(gain):+.3f} {max(gain):+.3f}) {errors} "
            f"{mean['more']:>+8.2%} ({min(more):+.2%} {max(more):+.2%})"
        )


if __name__ == "__main__":
    main()

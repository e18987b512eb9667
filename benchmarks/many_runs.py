"""How many processor seconds it takes to read a thousand run folders, and to write the report of many snapshots.

    python benchmarks/many_runs.py
    python benchmarks/many_runs.py --against ../older-checkout --times 3 --json many_runs.json

Three parts, each in a process of its own so that imports and memory of one do not help the next: ``load_runs`` of small
run folders (one trial, with its snapshots in files and in the table, as a finished run has them), ``write_report`` over
the same folders, and ``write_report`` of one run with many snapshots (that of ``report_size.py``). With ``--against``
the same folders are read by the packages of another checkout too, one after the other, and the ratio is that of the
medians. Seconds are those of the processor, of one process, without imports.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from rich.console import Console
from rich.table import Table

PARTS = ("load_runs of many runs", "report over many runs", "report of many snapshots")


def make_runs(parent: Path, num_runs: int, num_epochs: int) -> None:
    """Write small runs of one trial; every run has its own seed and one of four shrink rates."""
    import random

    from report_size import genotype_of

    from dnad_ray.config.run import RunConfig, config_to_dict
    from dnad_ray.run_folder.records import EpochReport, Snapshot
    from dnad_ray.run_folder.writing import create_run, write_history, write_parquet, write_snapshot, write_status

    rng = random.Random(0)
    genotypes = [genotype_of(12 * (num_epochs - epoch), rng) for epoch in range(num_epochs)]
    for number in range(num_runs):
        rate = (0.02, 0.05, 0.1, 0.2)[number % 4]
        config = config_to_dict(RunConfig.model_validate({"seed": number, "shrink": {"rate": rate}}))
        folder = create_run(parent / f"run{number:04d}", config, "0.0.0")
        history = []
        for epoch, genotype in enumerate(genotypes, 1):
            macs = int(4e6 * genotype.num_operations * rng.uniform(0.97, 1.03))
            error = 0.05 + 0.3 / genotype.num_operations + rng.uniform(0.0, 0.02)
            both = {"step": 100 * epoch, "epoch": epoch, "num_operations": genotype.num_operations}
            both |= {"train_loss": 1.0 / epoch, "train_accuracy": 1 - error, "gamma": 0.1, "mu": 0.1}
            both |= {"sparsity": 9.0, "device_seconds": 60.0 * epoch}
            history.append(EpochReport(**both, kd_loss=None).to_dict())
            snapshot = Snapshot(
                **both, run=folder.name, trial="t00", seed=number, kind="final" if epoch == num_epochs else "pruned",
                digest=genotype.digest, macs=macs, macs_conv_linear=macs, params=macs // 150,
                proxy_accuracy=1 - error, shrink_rate=rate, kd_kind="none", kd_temperature=None, kd_weight=1.0,
                device="cpu", dataset="cifar10", image_size=32, num_classes=10, init_channels=36,
                counter="fvcore-0.1.5 total, eval",
            )  # fmt: skip
            write_snapshot(folder, snapshot, genotype, _write)
        write_history(folder, "t00", history, _write)
        write_status(folder, "t00", "finished", write=_write, overrides={"seed": number})
        write_parquet(folder)


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)  # nothing here must survive a power failure


def seconds_of(part: str, parent: Path) -> float:
    """Return the processor seconds of one part."""
    from analysis import load_runs, write_report

    warnings.simplefilter("ignore")
    small = sorted((parent / "small").iterdir())
    began = time.process_time()
    if part == PARTS[0]:
        load_runs(small)
    elif part == PARTS[1]:
        write_report(small, parent / "report.html")
    else:
        write_report(parent / "many", parent / "report.html")
    return time.process_time() - began


def measured(checkout: Path, part: str, parent: Path) -> float:
    """Measure one part with the packages of a checkout, in a new process."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--part", part, "--folder", str(parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=parent)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--epochs", type=int, default=5, help="snapshots of a small run")
    parser.add_argument("--snapshots", type=int, default=40_000, help="of the large run")
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--parts", type=int, nargs="+", default=[0, 1, 2], choices=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(seconds_of(given.part, given.folder))
        return
    sides = {"here": Path(__file__).resolve().parent.parent}
    if given.against:
        sides["there"] = given.against.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        parent = Path(temporary)
        parts = [PARTS[index] for index in given.parts]
        (parent / "small").mkdir()
        if {0, 1} & set(given.parts):
            make_runs(parent / "small", given.runs, given.epochs)
        if 2 in given.parts:
            from report_size import make_run

            make_run(parent / "many", given.snapshots)
        found = {part: {side: [] for side in sides} for part in parts}
        for _ in range(given.times):
            for part in parts:
                for side, checkout in sides.items():
                    found[part][side].append(measured(checkout, part, parent))
    title = f"{given.runs:,} runs of {given.epochs} snapshots; {given.snapshots:,} snapshots"
    table = Table("processor seconds", *sides, *(["ratio"] if given.against else []), title=title)
    for part, by_side in found.items():
        medians = [statistics.median(values) for values in by_side.values()]
        ratio = [f"{medians[1] / medians[0]:.1f}"] if given.against else []
        table.add_row(part, *(f"{value:.2f}" for value in medians), *ratio)
    Console(width=100).print(table)
    if given.json:
        given.json.write_text(json.dumps({"title": title, "seconds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

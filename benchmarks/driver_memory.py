"""Whether the driver of a long sweep stays small: memory and time per report over 10,000 reported snapshots.

    python benchmarks/driver_memory.py
    python benchmarks/driver_memory.py --ray

Without ``--ray`` 1,000 trials of 10 snapshots are played to the real board with all its displays: live table (drawn
once a second into a file), JSON lines, event files, live page. Records are complete; their numbers follow a search that
shrinks, with noise, so that the front grows as it does in life. With ``--ray`` few trials report as many snapshots
through a real Tune, with checkpoints: what Tune itself keeps is then part of the sum.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from rich.console import Console

from analysis.live import live_page, live_script
from dnad_ray.config.run import RunConfig
from dnad_ray.run_folder.records import EpochReport, Snapshot
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.board import Board
from dnad_ray.watch.json_lines import JsonLines
from dnad_ray.watch.live_page import LivePage
from dnad_ray.watch.live_table import LiveTable
from dnad_ray.watch.logbook import Logbook
from dnad_ray.watch.moments import Moment, Reported
from dnad_ray.watch.tensorboard import EventFiles

MARKS = (1_000, 5_000, 10_000)
AT_ONCE = 8


def trial_records(trial: str, seed: int, num_snapshots: int) -> Iterator[Snapshot | EpochReport]:
    """A search that shrinks from about 1e8 multiply-adds: a snapshot and a report per epoch."""
    rng = random.Random(seed)
    share, quality = 1.0, rng.gauss(0.0, 0.01)
    for epoch in range(1, num_snapshots + 1):
        share *= rng.uniform(0.5, 0.9) if num_snapshots < 100 else rng.uniform(0.995, 0.999)
        macs = max(1000, int(1e8 * share * rng.uniform(0.97, 1.03)))
        accuracy = min(0.999, 0.95 + quality - 0.05 * share**-0.3 / 4 + rng.gauss(0.0, 0.004))
        common = {
            "step": 400 * epoch,
            "epoch": epoch,
            "num_operations": max(8, int(300 * share)),
            "train_loss": 2.0 / epoch,
            "train_accuracy": accuracy,
            "gamma": 0.1,
            "mu": 0.1,
            "sparsity": 900 * share,
            "device_seconds": 60.0 * epoch,
        }
        yield Snapshot(
            **common,
            run="simulated",
            trial=trial,
            seed=seed,
            kind="pruned",
            digest=f"{rng.getrandbits(64):016x}",
            macs=macs,
            macs_conv_linear=int(0.98 * macs),
            params=macs // 150 + rng.randrange(20_000),
            proxy_accuracy=round(max(0.05, accuracy) * 5000) / 5000,
            shrink_rate=0.05,
            kd_kind="features",
            kd_temperature=None,
            kd_weight=1.0,
            device="cpu",
            dataset="cifar10",
            image_size=32,
            num_classes=10,
            init_channels=36,
            counter="fvcore-0.1.5 total, eval",
        )
        yield EpochReport(**common, kd_loss=1.0 / epoch)


def specs_of(num_trials: int) -> list[TrialSpec]:
    config = RunConfig()
    return [TrialSpec(f"t{index:04d}", {"shrink.rate": 0.05, "seed": index}, config) for index in range(num_trials)]


def play(board: Board, specs: list[TrialSpec], folder: Path, num_snapshots: int) -> None:
    """Let the trials report, a few at a time, as workers do."""
    board.begin(specs, folder)
    waiting = [(spec, trial_records(spec.name, index, num_snapshots)) for index, spec in enumerate(specs)]
    waiting.reverse()
    running: list[tuple[TrialSpec, Iterator[Snapshot | EpochReport]]] = []
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            running.append(waiting.pop())
            board.trial_began(running[-1][0].name)
        for spec, records in list(running):
            record = next(records, None)
            if record is None:
                running.remove((spec, records))
                board.trial_ended(spec.name, "finished")
            else:
                board.report(spec.name, record)
    board.end("finished", {})


class Meter:
    """A display that looks at the process at each mark."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.last = time.process_time(), 0

    def __call__(self, moment: Moment) -> None:
        if not isinstance(moment, Reported) or not isinstance(moment.record, Snapshot):
            return
        count = moment.run.num_snapshots
        if count in MARKS:
            now, (before, counted) = time.process_time(), self.last
            self.rows.append(
                {
                    "snapshots": count,
                    "rss_mib": round(psutil.Process().memory_info().rss / 2**20, 1),
                    "front": len(moment.run.front),
                    # A snapshot comes with an epoch report: two reports each.
                    "cpu_ms_per_report": round(1000 * (now - before) / (2 * (count - counted)), 3),
                }
            )
            self.last = now, count


def simulated(folder: Path) -> list[dict[str, float]]:
    meter = Meter()
    sink = (folder / "terminal.txt").open("w")
    console = Console(file=sink, force_terminal=True, width=120, height=40)
    with sink, (folder / "lines.json").open("w") as lines, LiveTable(console) as table:
        displays = [
            table,
            JsonLines(lines, io.StringIO()),
            Logbook(EventFiles()),
            LivePage(live_page, live_script),
            meter,
        ]
        (folder / "run").mkdir()
        play(Board(displays), specs_of(1000), folder / "run", 10)
    return meter.rows


def through_ray(folder: Path, num_trials: int = 4) -> list[dict[str, float]]:
    from ray import tune

    from dnad_ray.on_ray.cluster import cluster
    from dnad_ray.on_ray.reports import metrics_of
    from dnad_ray.on_ray.watcher import BoardCallback

    per_trial = MARKS[-1] // num_trials

    def report_all(config: dict[str, str]) -> None:
        name = config["trial"]
        for record in trial_records(name, int(name[1:]), per_trial):
            metrics = metrics_of([record], at_end=False)
            if isinstance(record, Snapshot):
                with tempfile.TemporaryDirectory() as checkpoint:
                    (Path(checkpoint) / "state").write_text(str(record.step))
                    tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(checkpoint))
            else:
                tune.report(metrics)

    meter, specs = Meter(), specs_of(num_trials)
    (folder / "run").mkdir()
    board = Board([Logbook(EventFiles()), LivePage(live_page, live_script), meter])
    with cluster(RunConfig(), None):
        board.begin(specs, folder / "run")
        tune.Tuner(
            report_all,
            param_space={"trial": tune.grid_search([spec.name for spec in specs])},
            run_config=tune.RunConfig(
                storage_path=str(folder / "ray"),
                name="attempt-1",
                checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
                callbacks=[BoardCallback(folder / "run", board)],
                verbose=0,
            ),
        ).fit()
    return meter.rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ray", action="store_true", help="report through a real Tune")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = through_ray(Path(folder)) if arguments.ray else simulated(Path(folder))
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()

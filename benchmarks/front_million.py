"""How long a million snapshots take: to load as one frame, to merge into a front, and the front of the others.

    python benchmarks/front_million.py
    python benchmarks/front_million.py --rows 100000 --json front_million.json

A run folder as a very large sweep leaves it (1,000 trials of 1,000 snapshots in ``snapshots.parquet``) is made in a
temporary place and loaded. Then moocore, pymoo and Optuna get the same points as plain arrays; whichever is not
installed is passed over. All agree on which points are on the front, or the program says so. A row that takes longer
than ``--limit`` seconds on a tenth of the points is not tried on all of them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from analysis import front_of, load_runs, pareto_mask
from dnad_ray.config.run import RunConfig, config_to_dict
from dnad_ray.run_folder.snapshot_table import ARROW_SCHEMA
from dnad_ray.run_folder.writing import create_run

OBJECTIVES = ("error", "macs", "params")


def make_run(folder: Path, num_rows: int) -> None:
    """Write a run whose trials shrink from about 1e8 multiply-adds, with noise, so that the front has hundreds."""
    rng = np.random.default_rng(0)
    per_trial = min(1000, num_rows)
    num_trials = num_rows // per_trial
    size = num_trials * per_trial
    step = np.tile(np.arange(1, per_trial + 1), num_trials)
    share = np.exp(-4.0 * step / per_trial) * rng.uniform(0.97, 1.03, size)
    error = np.clip(0.04 + 0.012 * share**-0.3 + rng.normal(0.0, 0.004, size), 0.001, 0.999)
    macs = (1e8 * share).astype(np.int64)
    params = (macs // 150 + rng.integers(0, 20_000, size)).astype(np.int64)
    trials = [f"t{index:04d}" for index in range(num_trials)]
    # Accuracies are shares of 5,000 images: ties are as common as in life.
    constant = {"run": "million", "kind": "pruned", "kd_kind": "features", "device": "cpu", "dataset": "cifar10"}
    constant |= {"counter": "fvcore-0.1.5 total, eval", "image_size": 32, "num_classes": 10, "init_channels": 36}
    constant |= {"kd_temperature": None, "kd_weight": 1.0, "shrink_rate": 0.05, "gamma": 0.1, "mu": 0.1}
    constant |= {"costs_traced": False, "in_channels": 3}
    columns = {
        "trial": np.repeat(trials, per_trial),
        "seed": np.repeat(np.arange(num_trials), per_trial),
        "step": step * 40,
        "epoch": step,
        "digest": [f"{value:016x}" for value in rng.integers(0, 2**62, size)],
        "num_operations": np.maximum(8, (300 * share).astype(int)),
        "macs": macs,
        "macs_conv_linear": (0.98 * macs).astype(np.int64),
        "params": params,
        "proxy_accuracy": np.round((1 - error) * 5000) / 5000,
        "train_loss": 2.0 / step,
        "train_accuracy": 1 - error,
        "sparsity": 900 * share,
        "device_seconds": 60.0 * step,
    }
    arrays = [
        pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.array([constant[field.name]] * size, field.type)
        for field in ARROW_SCHEMA
    ]
    create_run(folder, config_to_dict(RunConfig()), "0.0.0")
    pq.write_table(pa.table(arrays, schema=ARROW_SCHEMA), folder / "snapshots.parquet")


def others() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Who else finds a front: a function from points, all minimised, to the mask of those on it."""
    found: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    import moocore

    found["moocore"] = lambda points: moocore.is_nondominated(points, keep_weakly=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

            def of_pymoo(points: np.ndarray) -> np.ndarray:
                mask = np.zeros(len(points), dtype=bool)
                mask[NonDominatedSorting().do(points, only_non_dominated_front=True)] = True
                return mask

            found["pymoo"] = of_pymoo
        except ImportError:
            pass
    try:
        from optuna.study._multi_objective import _is_pareto_front

        found["optuna"] = lambda points: _is_pareto_front(points, assume_unique_lexsorted=False)
    except ImportError:
        pass
    return found


def timed(call: Callable[[], object], repeats: int = 3) -> tuple[float, object]:
    """Return the shortest wall time of some calls, and what the last one returned."""
    seconds, result = [], None
    for _ in range(repeats):
        began = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - began)
        if seconds[-1] > 10:
            break
    return min(seconds), result


def measure(num_rows: int, limit: float) -> dict[str, object]:
    """Return every time, in seconds."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "million"
        make_run(folder, num_rows)
        plain, frame = timed(lambda: load_runs(folder, config=False), 1)
        full, _ = timed(lambda: load_runs(folder), 1)
    front_seconds, front = timed(lambda: front_of(frame, OBJECTIVES))
    result: dict[str, object] = {
        "rows": len(frame),
        "load_runs without config": plain,
        "load_runs": full,
        "front_of": front_seconds,
        "front size": len(front),
        "masks": {},
    }
    rng = np.random.default_rng(1)
    points = {
        "snapshots, 3": frame[list(OBJECTIVES)].to_numpy(dtype=float),
        "snapshots, 2": frame[["error", "macs"]].to_numpy(dtype=float),
        "uniform, 5": rng.random((num_rows, 5)),
    }
    for name, table in points.items():
        expected = None
        row: dict[str, object] = {}
        for who, mask_of in {"analysis": pareto_mask, **others()}.items():
            tenth, _ = timed(lambda mask_of=mask_of, table=table: mask_of(table[::10].copy()), 1)
            if tenth > limit:
                row[who] = f"over {limit:g} s for a tenth ({tenth:.1f} s)"
                continue
            seconds, mask = timed(lambda mask_of=mask_of, table=table: mask_of(table))
            expected = mask if expected is None else expected
            row[who] = seconds
            if not np.array_equal(mask, expected):
                row[who] = f"{seconds:.3f} s, another front: {int(np.sum(mask))} points, not {int(np.sum(expected))}"
        row["points on the front"] = int(np.sum(expected))
        result["masks"][name] = row
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--limit", type=float, default=20.0, help="seconds that a tenth of the points may take")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    result = measure(given.rows, given.limit)
    table = Table("what", "seconds", title=f"{result['rows']:,} snapshots; front of {', '.join(OBJECTIVES)}")
    for name in ("load_runs without config", "load_runs", "front_of", "front size"):
        table.add_row(name, f"{result[name]:,.3f}" if isinstance(result[name], float) else str(result[name]))
    for name, row in result["masks"].items():
        for who, seconds in row.items():
            table.add_row(f"{name} objectives: {who}", f"{seconds:.3f}" if isinstance(seconds, float) else str(seconds))
    Console(width=120).print(table)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

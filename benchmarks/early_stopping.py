"""Hypervolume against compute, with and without the Pareto-aware scheduler, on digits.

    python benchmarks/early_stopping.py --json early-stopping.json

Real searches are run to their end once, one after the other on one thread, and recorded: settings of shrink rate and
learning rate, one of them poor, under several seeds, once with a floor in operations as the demo has it and once with
a floor in MACs. Sweeps are then replayed from the records: two workers take trials from a queue, each snapshot
arrives when the trial had spent the CPU seconds it was recorded with, and the scheduler decides by the very code that a
sweep runs (``dnad_ray.dominance``). So the networks are real and the sweeps are simulated. Each replay has an order of
the trials of its own, drawn at random and the same with and without the scheduler.

Hypervolume is that of error and MACs, a share of the box between zero and (100 %, largest MACs recorded).
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from analysis import hypervolume_share
from dnad_ray.config import RunConfig, SweepConfig, with_overrides
from dnad_ray.data import load_data
from dnad_ray.dominance import Trajectories
from dnad_ray.recipes import recipe_named
from dnad_ray.records import Snapshot
from dnad_ray.search import SearchState, search
from dnad_ray.trial import setting_of, trials_of

GRID = {"shrink.rate": [0.08, 0.12], "train.learning_rate": [5e-4, 2e-3, 8e-3]}
FLOORS = {
    "20 operations": {"shrink.floor.operations": 20},
    "1.2 million MACs": {"shrink.floor.operations": None, "shrink.floor.macs": 1_200_000},
}
SHARES = (0.25, 0.5, 0.75, 1.0)
NUM_WORKERS = 2

Row = dict[str, Any]


class Replay(NamedTuple):
    """A replayed sweep: when which network was found, what it took, and who was stopped."""

    found: list[tuple[float, float, float]]  # compute of all workers until then, error, MACs
    compute: float
    stopped: list[str]

    def hypervolume(self, reference, compute):
        return hypervolume_share([point[1:] for point in self.found if point[0] <= compute] or [reference], reference)


def record(config: RunConfig) -> list[Row]:
    """Run all trials to their end; one row per snapshot."""
    data, rows = load_data(config.data), []
    for spec in trials_of(config):
        began = time.process_time()
        state = SearchState.start(spec.config, data, run="record", trial=spec.name)
        for event in search(state):
            if isinstance(event, Snapshot):
                rows.append(
                    {
                        "trial": spec.name,
                        "setting": setting_of(spec.overrides),
                        "seed": spec.config.seed,
                        "step": event.step,
                        "error": 1 - event.proxy_accuracy,
                        "macs": event.macs,
                        "seconds": time.process_time() - began,
                        "num_images": len(data.validation),
                    }
                )
        print(f"{spec.name}: {spec.label}: {rows[-1]['seconds']:.1f} s, {rows[-1]['error']:.2%}", flush=True)
    return rows


def replay(trials: dict[str, list[Row]], order: list[str], factor: float | None, patience: int) -> Replay:
    """Simulate a sweep; without a factor, without the scheduler."""
    known = Trajectories(trials[order[0]][0]["num_images"], factor or 1.0, patience)
    queue, events, found, spent, stopped = list(order), [], [], {}, []

    def begin(now):
        if queue:
            name = queue.pop(0)
            heapq.heappush(events, (now + trials[name][0]["seconds"], name, 0, now))

    for _ in range(NUM_WORKERS):
        begin(0.0)
    while events:
        now, name, index, began = heapq.heappop(events)
        row = trials[name][index]
        known.add(name, row["setting"], row["step"], row["macs"], row["error"])
        spent[name] = row["seconds"]
        running = [(now - start) for _, _, _, start in events]
        done = sum(seconds for other, seconds in spent.items() if other not in {entry[1] for entry in events})
        found.append((done + sum(running), row["error"], row["macs"]))
        is_last = index == len(trials[name]) - 1
        if not is_last and factor is not None and known.verdict(name) is not None:
            stopped.append(name)
            is_last = True
        if is_last:
            begin(now)
        else:
            heapq.heappush(events, (began + trials[name][index + 1]["seconds"], name, index + 1, began))
    return Replay(found, sum(spent.values()), stopped)


def compare(rows: list[Row], factor: float, patience: int, num_orders: int) -> dict[str, Any]:
    """Replay sweeps in many orders with and without the scheduler."""
    trials: dict[str, list[Row]] = {}
    for row in rows:
        trials.setdefault(row["trial"], []).append(row)
    reference = (1.0, float(max(row["macs"] for row in rows)))
    generator, pairs = random.Random(0), []
    for _ in range(num_orders):
        order = generator.sample(sorted(trials), len(trials))
        pairs.append((replay(trials, order, None, patience), replay(trials, order, factor, patience)))
    full = pairs[0][0].compute
    poor = {name for name, entries in trials.items() if '"train.learning_rate": 0.0005' in entries[0]["setting"]}
    at = {}
    for share in SHARES:
        without, with_it = (
            [run.hypervolume(reference, share * full) for run in runs] for runs in zip(*pairs, strict=True)
        )
        gains = [b - a for a, b in zip(without, with_it, strict=True)]
        at[str(share)] = {
            "without": spread(without),
            "with": spread(with_it),
            "gain": spread(gains),
            "orders_better": sum(gain > 1e-9 for gain in gains),
            "orders_worse": sum(gain < -1e-9 for gain in gains),
        }
    return {
        "factor": factor,
        "patience": patience,
        "num_orders": num_orders,
        "num_trials": len(trials),
        "compute_without_seconds": full,
        "compute_with_share": spread([b.compute / full for _, b in pairs]),
        "stopped": spread([float(len(b.stopped)) for _, b in pairs]),
        "stopped_of_poor_setting": spread([float(len(poor & set(b.stopped))) for _, b in pairs]),
        "num_poor": len(poor),
        "hypervolume_at": at,
    }


def spread(values: list[float]) -> dict[str, float]:
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "min": min(values),
        "max": max(values),
    }


def print_table(results: list[dict[str, Any]]) -> None:
    shares = " / ".join(f"{share:.0%}" for share in SHARES)
    print(f"| floor | factor | compute | stopped (of poor setting) | gain in hypervolume at {shares} of the compute |")
    print("|---|---:|---:|---:|---|")
    for result in results:
        gains = [
            f"{entry['gain']['mean']:+.4f} +- {entry['gain']['sd']:.4f} "
            f"({entry['orders_better']} up, {entry['orders_worse']} down)"
            for entry in result["hypervolume_at"].values()
        ]
        compute, stopped, poor = (result[name] for name in ("compute_with_share", "stopped", "stopped_of_poor_setting"))
        print(
            f"| {result['name']} | {result['factor']:g} | {compute['mean']:.1%} +- {compute['sd']:.1%} | "
            f"{stopped['mean']:.1f} ({poor['mean']:.1f} of {result['num_poor']}) | {'; '.join(gains)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--orders", type=int, default=50)
    parser.add_argument(
        "--record", type=Path, default=Path("early-stopping-records.json"), help="reused if it is there"
    )
    parser.add_argument("--json", type=Path, default=Path("early-stopping.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    records: dict[str, list[Row]] = json.loads(arguments.record.read_text()) if arguments.record.exists() else {}
    num_trials = arguments.seeds * len(GRID["shrink.rate"]) * len(GRID["train.learning_rate"])
    varied = {"distill.kind": "none", "distill.temperature": None, "sweep.grid": GRID, "sweep.num_trials": num_trials}
    for name, floor in FLOORS.items():
        if name not in records:
            records[name] = record(with_overrides(recipe_named("demo"), {**varied, **floor}))
            arguments.record.write_text(json.dumps(records))
    defaults, results = SweepConfig(), []
    for name, rows in records.items():
        scopes = {f"{name}, all seeds": rows}
        for seed in sorted({row["seed"] for row in rows}):
            scopes[f"{name}, seed {seed}"] = [row for row in rows if row["seed"] == seed]
        for scope, chosen in scopes.items():
            for factor in (1.0, defaults.noise_factor, 2.5) if chosen is rows else (defaults.noise_factor,):
                results.append({"name": scope, **compare(chosen, factor, defaults.patience, arguments.orders)})
    print_table(results)
    arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

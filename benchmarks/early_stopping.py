"""Hypervolume against compute, with and without the Pareto-aware scheduler, on digits.

    python benchmarks/early_stopping.py --json early-stopping.json

Real searches are run to their end once, one after the other on one thread, and recorded: settings of shrink rate and
learning rate under several seeds; learning rates close to a good one with a floor in operations as the demo has it, the
same with a floor in MACs, and learning rates over three decades as somebody tries who knows nothing yet. Sweeps are
then replayed from the records: two workers take trials from a queue, each snapshot arrives when the trial had spent the
CPU seconds it was recorded with, and the scheduler decides by the very code that a sweep runs
(``dnad_ray.trials.dominance``). So the networks are real, the sweeps simulated. Each replay has an order of the trials
of its own, drawn at random and the same with and without the scheduler.

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

from analysis import hypervolume_share, pareto_mask
from dnad_ray.config.recipes import recipe_named
from dnad_ray.config.run import RunConfig, SweepConfig, with_overrides
from dnad_ray.data.loading import load_data
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.search.loop import SearchState, search
from dnad_ray.trials.dominance import Trajectories
from dnad_ray.trials.spec import setting_of, trials_of
from search_spaces.json_reader import parse_json

RATES = [0.08, 0.12]
CLOSE, WIDE = [5e-4, 2e-3, 8e-3], [2e-5, 2e-4, 2e-3, 2e-2]
MACS_FLOOR = {"shrink.floor.operations": None, "shrink.floor.macs": 1_200_000}
SCENARIOS: dict[str, tuple[list[float], dict[str, Any]]] = {
    "close, floor of 20 operations": (CLOSE, {"shrink.floor.operations": 20}),
    "close, floor of 1.2 M MACs": (CLOSE, MACS_FLOOR),
    "wide, floor of 1.2 M MACs": (WIDE, MACS_FLOOR),
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
    mask = pareto_mask([(row["error"], row["macs"]) for row in rows])
    on_front = {row["trial"] for row, is_on in zip(rows, mask, strict=True) if is_on}
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
        "stopped_on_front": spread([float(len(on_front & set(b.stopped))) for _, b in pairs]),
        "num_on_front": len(on_front),
        "hypervolume_of_all": hypervolume_share([(row["error"], row["macs"]) for row in rows], reference),
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
    print(
        f"| sweep | factor | compute | stopped (on the front of all) | gain in hypervolume at {shares} of the compute |"
    )
    print("|---|---:|---:|---:|---|")
    for result in results:
        gains = [
            f"{entry['gain']['mean']:+.4f} +- {entry['gain']['sd']:.4f} "
            f"({entry['orders_better']} up, {entry['orders_worse']} down)"
            for entry in result["hypervolume_at"].values()
        ]
        compute, stopped, lost = (result[name] for name in ("compute_with_share", "stopped", "stopped_on_front"))
        print(
            f"| {result['name']} | {result['factor']:g} | {compute['mean']:.1%} +- {compute['sd']:.1%} | "
            f"{stopped['mean']:.1f} of {result['num_trials']} ({lost['mean']:.1f} of {result['num_on_front']}) | "
            f"{'; '.join(gains)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=3, help="0 to 2 were looked at when the defaults were chosen")
    parser.add_argument("--orders", type=int, default=50)
    parser.add_argument(
        "--record", type=Path, default=Path("early-stopping-records.json"), help="reused if it is there"
    )
    parser.add_argument("--json", type=Path, default=Path("early-stopping.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    records: dict[str, list[Row]] = {}
    if arguments.record.exists():
        records = parse_json(arguments.record.read_bytes(), str(arguments.record))
    for name, (learning_rates, floor) in SCENARIOS.items():
        if name not in records:
            varied = {
                "seed": arguments.first_seed,
                "distill.kind": "none",
                "distill.temperature": None,
                "sweep.grid": {"shrink.rate": RATES, "train.learning_rate": learning_rates},
                "sweep.num_trials": arguments.seeds * len(RATES) * len(learning_rates),
            }
            records[name] = record(with_overrides(recipe_named("demo"), {**varied, **floor}))
            arguments.record.write_text(json.dumps(records))
    defaults, results = SweepConfig(), []
    for name, rows in records.items():
        scopes = {f"{name}, all seeds": rows}
        for seed in sorted({row["seed"] for row in rows}):
            scopes[f"{name}, seed {seed}"] = [row for row in rows if row["seed"] == seed]
        for scope, chosen in scopes.items():
            for factor in (2.0, defaults.noise_factor, 4.0) if chosen is rows else (defaults.noise_factor,):
                results.append({"name": scope, **compare(chosen, factor, defaults.patience, arguments.orders)})
    print_table(results)
    arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

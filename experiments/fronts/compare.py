"""Trained fronts at equal compute: `dnad-ray fit` beside what people would do instead, on the same images.

    python experiments/fronts/compare.py IMAGES --name cifar10 --seeds 10 11 12 13 14

Each seed runs `fit` first, on one thread within --time-budget. The other arms then have the CPU seconds that it took,
everything included: imports, teacher, search, selection, final training. They train for the budgets of multiply-adds
that `fit` planned, by its recipe (`quick`), choose by the validation images that it chooses by, and are tested once:

- ``halving``: random networks of the space of `fit`, one operation on each edge, in a race by successive halving.
- ``nsga2``: NSGA-II (Optuna) over width, depth of each stage and operations of a plain residual network.
- ``resnet18``, ``mobilenet_v3``: torchvision's networks, scaled in width.

The first two have 40 % of the time for their choice, as much as `fit` has for search and race together. A row for each
trained network is added to `trained.csv` when its arm is done; arms that are there are not run again.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dnad_ray.commands.fit_planning import protocol_of
from dnad_ray.config.run import RunConfig, config_from_dict
from dnad_ray.data.loading import load_data
from dnad_ray.errors import ConfigError
from dnad_ray.networks.search_space import space_of
from dnad_ray.networks.spec import NetworkSpec, cost_of, scaled_to
from dnad_ray.retrain.data import RetrainImages, measured_on_test
from dnad_ray.retrain.fit_plan import FitPlan
from dnad_ray.retrain.race import survivors
from dnad_ray.retrain.state import RetrainState
from dnad_ray.run_folder.jobs import read_retrained
from dnad_ray.run_folder.reading import read_run
from dnad_ray.training.loop import train
from search_spaces.genotype import CellGenotype, Edge, Genotype
from search_spaces.json_reader import parse_json
from search_spaces.ops import PARAMETER_FREE
from search_spaces.space import SearchSpace
from search_spaces.stages import stages

TABLE = Path(__file__).with_name("trained.csv")
FIELDS = ("images", "seed", "arm", "budget", "macs", "params", "error", "num_images", "epochs", "cpu_seconds", "choice")
CHOICE = 0.4
"""Share of the time for choosing networks."""
SHORT = 3
"""Epochs of a network that is only compared, at least."""
LEAST_WIDTH, MOST_WIDTH = 4, 20
"""Of NSGA-II: wider networks exceed the budgets, however shallow they are."""
STEPS = 10
"""Steps that are timed, after as many that are not."""
POPULATION = 8


class Arm:
    """What an arm works with.

    Args:
        config: The configuration of `fit`.
        plan: Its plan.
        seconds: CPU seconds of this process that the arm has.
    """

    def __init__(self, config: RunConfig, plan: FitPlan, seconds: float) -> None:
        data = load_data(config.data)
        self.work, self.final = RetrainImages(data, "validation"), measured_on_test(data, config.data)
        self.config, self.budgets, self.end = config, plan.budgets, seconds
        self.space, self.stem = space_of(config.space), config.space.stem
        self.short = plan.rungs[0].epochs if plan.rungs else SHORT
        self.tried = 0

    def left(self) -> float:
        """Return the CPU seconds that are left."""
        return self.end - time.process_time()

    def accuracy(self, spec: NetworkSpec, epochs: int, images: RetrainImages) -> float:
        """Train a network, and return its accuracy on the images that it is measured with."""
        state = RetrainState(spec, protocol_of(epochs), images.data, self.config.seed)
        for _ in train(state):
            pass
        return state.measure()

    def epoch_seconds(self, specs: Sequence[NetworkSpec], images: RetrainImages) -> float:
        """Return the CPU seconds of an epoch of some networks together, from a few steps of each."""
        seconds = 0.0
        for spec in specs:
            state = RetrainState(spec, protocol_of(SHORT), images.data, self.config.seed)
            for step in range(-STEPS, STEPS):
                if step == 0:
                    began = time.process_time()
                state.train_step()
            seconds += (time.process_time() - began) / STEPS * state.steps_per_epoch
            state.batches.close()
        return seconds

    def finished(self, chosen: Mapping[int, NetworkSpec]) -> list[dict[str, Any]]:
        """Train what was chosen for each budget for the time that is left, and test it once.

        A network that was chosen for several budgets is trained once, as that of the smallest one.
        """
        of_budget = {spec: budget for budget, spec in sorted(chosen.items(), reverse=True)}
        epochs = max(SHORT, int(self.left() / self.epoch_seconds([*of_budget], self.final)))
        rows = []
        for spec, budget in of_budget.items():
            cost = cost_of(spec, self.final.data.shape)
            error = 1 - self.accuracy(spec, epochs, self.final)
            choice = f"{spec.model} {spec.digest} {spec.init_channels or spec.width:g}, of {self.tried}"
            row = {"budget": budget, "macs": cost.macs, "params": cost.params, "error": error, "epochs": epochs}
            rows.append({**row, "num_images": len(self.final.data.validation), "choice": choice})
        return rows


def halving(arm: Arm) -> list[dict[str, Any]]:
    """Race random networks of the space, those of a budget against each other."""
    rng, shape = random.Random(arm.config.seed), arm.work.data.shape

    def at_random(budget: int) -> NetworkSpec:
        while True:
            genotype = random_network(arm.space, rng)
            spec = NetworkSpec(origin="random", genotype=genotype, init_channels=4, stem=arm.stem)
            try:
                wide = scaled_to(spec, shape, max_macs=budget)
            except ConfigError:
                continue
            if wide.init_channels >= 4:
                return wide

    first = {budget: at_random(budget) for budget in arm.budgets}
    short, each = arm.short, arm.epoch_seconds([*first.values()], arm.work)
    # Half of the networks are trained again, twice as long: the second round takes as long as the first.
    places = max(2, int(CHOICE * arm.left() / (2 * short * each)))
    chosen = {}
    for budget in arm.budgets:
        members = {spec.digest: spec for spec in [first[budget], *(at_random(budget) for _ in range(places - 1))]}
        arm.tried += len(members)
        for epochs, keep in ((short, (places + 1) // 2), (2 * short, 1)):
            errors = {name: 1 - arm.accuracy(spec, epochs, arm.work) for name, spec in members.items()}
            members = {name: members[name] for name in survivors(errors, [[*members]], keep)[0]}
        chosen[budget] = next(iter(members.values()))
    return arm.finished(chosen)


def random_network(space: SearchSpace, rng: random.Random) -> Genotype:
    """Draw one operation for each edge; of the convolutions into the output, none is one more choice."""

    def cell(topology: CellGenotype) -> CellGenotype:
        nodes = []
        for node in topology.nodes:
            kept: list[Edge] = []
            for _, edges in itertools.groupby(node, key=lambda edge: edge.source):
                of_edge = list(edges)
                drawn = rng.choice([*of_edge, None]) if kept else rng.choice(of_edge)
                kept += [drawn] if drawn is not None else []
            nodes.append(tuple(kept))
        return replace(topology, nodes=tuple(nodes))

    dense = space.dense()
    return replace(dense, cells=tuple(cell(topology) for topology in dense.cells)).pruned()


def nsga2(arm: Arm) -> list[dict[str, Any]]:
    """Let NSGA-II choose width, depths and operations of a plain residual network; needs Optuna 5."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    most, shape, until = max(arm.budgets), arm.work.data.shape, (1 - CHOICE) * arm.left()
    whole = arm.space.usual_teacher()
    num_stages = len(set(stages(whole)))
    operations = [name for name in arm.space.operations if name not in PARAMETER_FREE]
    tried: dict[int, tuple[NetworkSpec, float, int]] = {}

    def value(trial: Any) -> tuple[float, float]:
        depths = [trial.suggest_int(f"depth{stage}", 0, len(whole.cells) // num_stages) for stage in range(num_stages)]
        first, second = (trial.suggest_categorical(f"operation{node}", operations) for node in range(2))
        genotype = plain_network(whole, depths, (first, second))
        width = trial.suggest_int("width", LEAST_WIDTH, MOST_WIDTH, log=True)
        spec = NetworkSpec(origin="plain", genotype=genotype, init_channels=width, stem=arm.stem)
        macs = cost_of(spec, shape).macs
        trial.set_constraint("macs", macs - most)
        if macs > most:
            return 1.0, float(macs)  # known without training
        error = 1 - arm.accuracy(spec, arm.short, arm.work)
        tried[trial.number] = spec, error, macs
        return error, float(macs)

    sampler = optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=arm.config.seed)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    while arm.left() > until:
        study.optimize(value, n_trials=1)
    arm.tried = len(tried)
    chosen: dict[int, NetworkSpec] = {}
    for budget in sorted(arm.budgets, reverse=True):
        fitting = [(error, -macs, number) for number, (_, error, macs) in tried.items() if macs <= budget]
        if fitting:
            chosen[budget] = tried[min(fitting)[2]][0]
        elif chosen:  # nothing so small was tried: the network of the budget above is made narrower
            chosen[budget] = scaled_to(chosen[min(chosen)], shape, max_macs=budget)
    return arm.finished(chosen)


def plain_network(whole: Genotype, depths: Sequence[int], operations: Sequence[str]) -> Genotype:
    """Return a residual network with so many cells in each stage, all with the same two operations."""
    of_stage, cells = stages(whole), []
    for index, cell in enumerate(whole.cells):
        is_there = of_stage[:index].count(of_stage[index]) < depths[of_stage[index]]
        nodes = tuple(
            tuple(
                edge if edge.operation in PARAMETER_FREE else edge._replace(operation=name)
                for edge in node
                if is_there or edge.operation in PARAMETER_FREE
            )
            for node, name in zip(cell.nodes, operations, strict=True)
        )
        cells.append(replace(cell, nodes=nodes))
    return replace(whole, cells=tuple(cells)).pruned()


def scaled(family: str) -> Callable[[Arm], list[dict[str, Any]]]:
    """Return the arm of a torchvision network."""

    def run(arm: Arm) -> list[dict[str, Any]]:
        chosen, network = {}, NetworkSpec(origin="torchvision", model=family)
        for budget in arm.budgets:
            try:
                chosen[budget] = scaled_to(network, arm.work.data.shape, max_macs=budget)
            except ConfigError:
                print(f"{family}: its narrowest network is above {budget:,} multiply-adds")
        return arm.finished(chosen)

    return run


ARMS = {
    "halving": halving,
    "nsga2": nsga2,
    "resnet18": scaled("resnet18"),
    "mobilenet_v3": scaled("mobilenet_v3_small"),
}


def by_fit(options: argparse.Namespace, out: Path, seed: int) -> float:
    """Run `fit`; returns its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [
            *(sys.executable, "-m", "dnad_ray", "fit", str(options.images), "--out", str(out), "--seed", str(seed)),
            *("--image-size", str(options.image_size), "--under", f"macs={options.macs}", "--no-ray", "--quiet"),
            *("--time-budget", options.time_budget),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rows_of_fit(out: Path, plan: FitPlan) -> list[dict[str, Any]]:
    """Return a row for each network that `fit` trained."""
    rows = []
    for result in sorted(read_retrained(out)[0], key=lambda row: -row["macs"]):
        budget = min(budget for budget in plan.budgets if budget >= result["macs"])
        choice = (
            f"{result['origin']} {result['digest']} {result['init_channels']}{', imitates' if result['kd'] else ''}; "
            f"{plan.teacher_epochs} epochs of a teacher, {plan.search_epochs} of a search"
        )
        row = {name: result[name] for name in ("macs", "params", "num_images", "epochs")}
        rows.append({**row, "budget": budget, "error": 1 - result["accuracy"], "choice": choice})
    return rows


def run_seed(options: argparse.Namespace, seed: int) -> None:
    """Run the arms of a seed that are not in the table."""
    done = {row["arm"]: row for row in read_table() if (row["images"], int(row["seed"])) == (options.name, seed)}
    out = options.out / f"{options.name}-{seed}"
    if "fit" not in done:
        shutil.rmtree(out, ignore_errors=True)
        seconds = by_fit(options, out, seed)
        write_rows(options.name, seed, "fit", seconds, rows_of_fit(out, plan_of(out)))
    else:
        seconds = float(done["fit"]["cpu_seconds"])
    for name in options.arms:
        if name not in done:
            # In a process of its own, whose CPU seconds are counted.
            arguments = (name, out, seconds, options.name)
            process = multiprocessing.get_context("spawn").Process(target=run_arm, args=arguments)
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"arm {name} of seed {seed} failed")


def plan_of(out: Path) -> FitPlan:
    """Return the plan of a run of `fit`."""
    return FitPlan.from_dict(parse_json((out / "fit.json").read_bytes(), "fit.json", 2**20)["plan"])


def run_arm(name: str, out: Path, seconds: float, table: str) -> None:
    """Run an arm beside a run of `fit`, and add its rows to the table."""
    torch.set_num_threads(1)
    config = config_from_dict(read_run(out).config, str(out))
    rows = ARMS[name](Arm(config, plan_of(out), seconds))
    write_rows(table, config.seed, name, time.process_time(), rows)


def read_table() -> list[dict[str, str]]:
    """Return the rows of the table."""
    if not TABLE.exists():
        return []
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(name: str, seed: int, arm: str, seconds: float, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add the rows of an arm to the table."""
    is_new = not TABLE.exists()
    with TABLE.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        for row in rows:
            facts = {"images": name, "seed": seed, "arm": arm, "cpu_seconds": f"{seconds:.1f}"}
            writer.writerow({**row, **facts, "error": f"{row['error']:.5f}"})
    errors = " ".join(f"{row['error']:.3f}" for row in rows)
    print(f"{name}, seed {seed}, {arm}: {seconds:.0f} CPU s, errors {errors}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--name", required=True, help="of the images, in the table")
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--arms", nargs="*", choices=[*ARMS], default=[*ARMS])
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--macs", default="1.6M", help="multiply-adds of the largest network")
    parser.add_argument("--time-budget", default="150s", help="of `fit`, wall time")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "fronts", help="runs of `fit`")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        run_seed(options, seed)


if __name__ == "__main__":
    main()

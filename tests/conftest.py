"""What every test may ask for, and run folders as a search leaves them behind.

The folders are written by the real writers with made-up but plausible numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dnad_ray.config.run import RunConfig, config_to_dict, with_overrides
from dnad_ray.run_folder.records import EpochReport, Retrained, Snapshot
from dnad_ray.run_folder.writing import create_run, write_history, write_snapshot, write_status
from search_spaces.genotype import NUM_INPUTS, CellGenotype, Edge, Genotype

OPERATIONS = ("sep_conv_3x3", "dil_conv_5x5", "skip_connect")


def pytest_configure() -> None:
    # The networks of the tests are so small that a second thread costs more than it brings.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        # Of several workers, one that got a long file last would work alone at the end.
        long = {item.path for item in items if item.get_closest_marker("ray") and item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in long)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


def dense_genotype(num_cells: int = 3, num_nodes: int = 3, operations: Sequence[str] = OPERATIONS) -> Genotype:
    """Every operation on every earlier state, as a supernet begins."""
    reductions = {num_cells // 3, 2 * num_cells // 3}
    nodes = tuple(
        tuple(Edge(name, source) for source in range(NUM_INPUTS + node) for name in operations)
        for node in range(num_nodes)
    )
    return Genotype(tuple(CellGenotype(cell in reductions, nodes) for cell in range(num_cells)))


def shrunken(genotype: Genotype, num_deleted: int, rng: random.Random) -> Genotype:
    """Delete edges at random; the network stays connected."""
    for _ in range(num_deleted):
        alive = [(c, n, e) for c, cell in enumerate(genotype.cells) for n, es in enumerate(cell.nodes) for e in es]
        rng.shuffle(alive)
        for where in alive:
            cells = tuple(
                CellGenotype(
                    cell.reduction,
                    tuple(tuple(e for e in es if (c, n, e) != where) for n, es in enumerate(cell.nodes)),
                )
                for c, cell in enumerate(genotype.cells)
            )
            smaller = Genotype(cells)
            if smaller.is_connected:
                genotype = smaller.pruned()
                break
    return genotype


def make_snapshot(genotype: Genotype, **values: Any) -> Snapshot:
    """A snapshot of a genotype; what is not given is plausible."""
    operations = genotype.pruned().num_operations
    defaults: dict[str, Any] = {
        "run": "demo",
        "trial": "t0",
        "seed": 0,
        "step": 10,
        "epoch": 1,
        "kind": "pruned",
        "digest": genotype.digest,
        "num_operations": operations,
        "macs": 200_000 + 41_000 * operations,
        "macs_conv_linear": 190_000 + 40_000 * operations,
        "params": 3_000 + 700 * operations,
        "proxy_accuracy": 0.9,
        "train_loss": 0.4,
        "train_accuracy": 0.88,
        "shrink_rate": 0.05,
        "kd_kind": "none",
        "kd_temperature": None,
        "kd_weight": 1.0,
        "gamma": 1e-3,
        "mu": 0.1,
        "sparsity": 2.5 * operations,
        "device_seconds": 12.5,
        "device": "cpu",
        "dataset": "digits",
        "image_size": 8,
        "num_classes": 10,
        "init_channels": 8,
        "counter": "fvcore-0.1.5 total, eval",
    }
    return Snapshot(**(defaults | values))


def make_trial(
    folder: Path, config: RunConfig, trial: str, epochs: int, genotype: Genotype, *, finished: bool = True
) -> None:
    """Let a trial shrink for some epochs; only a finished one ends with a final snapshot."""
    rng = random.Random(f"{trial} {config.seed}")
    per_epoch = max(1, round(config.shrink.rate * genotype.num_operations))
    history = []
    dense = genotype.num_operations
    for epoch in range(1, epochs + 1):
        if epoch > 1:
            genotype = shrunken(genotype, rng.randint(0, 2 * per_epoch), rng)
        share = genotype.num_operations / dense
        accuracy = 0.985 - 0.9 / (epoch + 2) * 0.2 - 0.25 * (1 - share) ** 4 + rng.uniform(-0.012, 0.012)
        if config.distill.kind != "none":
            accuracy += 0.01
        seconds = 4.0 * epoch + 3.0 * share
        write_snapshot(
            folder,
            make_snapshot(
                genotype,
                run=folder.name,
                trial=trial,
                seed=config.seed,
                step=45 * epoch,
                epoch=epoch,
                kind="final" if finished and epoch == epochs else "pareto" if epoch % 5 == 0 else "pruned",
                proxy_accuracy=round(accuracy * 359) / 359,
                shrink_rate=config.shrink.rate,
                kd_kind=config.distill.kind,
                kd_temperature=config.distill.temperature,
                kd_weight=config.distill.weight,
                device_seconds=seconds,
            ),
            genotype,
        )
        report = EpochReport(
            step=45 * epoch,
            epoch=epoch,
            num_operations=genotype.num_operations,
            train_loss=2.3 / epoch,
            train_accuracy=min(0.99, accuracy + 0.01),
            kd_loss=None if config.distill.kind == "none" else 1.0 / epoch,
            gamma=1e-3,
            mu=0.1,
            sparsity=2.5 * genotype.num_operations,
            device_seconds=seconds,
            operation_weights={"sep_conv_3x3": [0.75, 0.5], "skip_connect": [0.25, 0.5]},
        )
        history.append(report.to_dict())
        write_history(folder, trial, history)


@pytest.fixture
def dense() -> Callable[..., Genotype]:
    return dense_genotype


@pytest.fixture
def snapshot() -> Callable[..., Snapshot]:
    return make_snapshot


def make_retrained(row: Mapping[str, Any], **values: Any) -> Retrained:
    """What training the network of a snapshot from scratch may leave."""
    taken = ("run", "digest", "init_channels", "num_operations", "dataset", "image_size", "num_classes", "counter")
    numbers = ("macs", "macs_conv_linear", "params")
    about: dict[str, Any] = {
        name: getattr(row[name], "item", lambda name=name: row[name])() for name in (*taken, *numbers)
    }
    defaults: dict[str, Any] = {
        "job": f"{row['digest']}-{values.get('seed', 0)}",
        "origin": "search",
        "model": "genotype",
        "recipe": "quick",
        "protocol": "0123456789abcdef",
        "seed": 0,
        "epochs": 20,
        "width": 1.0,
        "num_cells": 3,
        "proxy_accuracy": float(row["proxy_accuracy"]),
        "accuracy": 0.95,
        "split": "test",
        "num_images": 359,
        "train_loss": 0.1,
        "train_accuracy": 0.97,
        "inherited": False,
        "ema": False,
        "kd": False,
        "device": "cpu",
        "device_seconds": 30.0,
    }
    return Retrained(**(about | defaults | values))


@pytest.fixture
def retrained() -> Callable[..., Retrained]:
    return make_retrained


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a run of several trials, all finished unless ``states`` says otherwise."""

    def build(
        name: str = "demo",
        trials: Sequence[Mapping[str, Any]] = ({"seed": 0, "shrink.rate": 0.05},),
        states: Mapping[int, Mapping[str, Any]] | None = None,
        epochs: int = 4,
        genotype: Genotype | None = None,
    ) -> Path:
        keys = [key for key in trials[0] if key != "seed"] if trials else []
        grid = {key: tuple(dict.fromkeys(trial[key] for trial in trials)) for key in keys}
        config = RunConfig.model_validate({"sweep": {"grid": grid}, "distill": {"kind": "none"}})
        folder = create_run(tmp_path / name, config_to_dict(config), "0.0.0")
        for index, overrides in enumerate(trials):
            state = (states or {}).get(index, {"state": "finished"})
            finished = state["state"] == "finished"
            write_status(folder, f"t{index}", **{"overrides": dict(overrides)} | dict(state))
            make_trial(
                folder,
                with_overrides(config, overrides),
                f"t{index}",
                epochs if finished else epochs // 2,
                genotype or dense_genotype(),
                finished=finished,
            )
        return folder

    return build

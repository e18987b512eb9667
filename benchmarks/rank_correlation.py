"""How well cheap scores rank networks against full retraining: Spearman and Kendall, on digits or an image folder.

    python benchmarks/rank_correlation.py --json rank-correlation.json

Real searches are run twice with the same seeds: once scoring snapshots with the running statistics of batch norm, and
once with re-estimated ones. Training never reads these statistics, so both runs record the same networks, which is
checked. Of all networks some are taken, spread over their cost, and each is

  - scored as the search scored it, without and with re-estimated statistics,
  - fine-tuned for few epochs from the weights that its snapshot kept,
  - trained for as few epochs from random weights (the same budget without what was inherited),
  - and retrained in full, under several seeds; the mean of their test accuracies is what the others are held against.

Multiply-adds are a score too: a rule that costs nothing. The correlation of one seed of full retraining with the mean
of the others bounds what any score can reach. Intervals are of a bootstrap over networks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.stats import kendalltau, spearmanr

from dnad_ray.commands.folder import run_folder
from dnad_ray.config.recipes import recipe_named
from dnad_ray.config.retrain import retrain_recipe, with_settings
from dnad_ray.config.run import with_overrides
from dnad_ray.costs.table import costs_of
from dnad_ray.data.loading import resolve_data_argument
from dnad_ray.networks.spec import NetworkSpec
from dnad_ray.retrain.data import load_retrain_images
from dnad_ray.retrain.state import RetrainState
from dnad_ray.run_folder.reading import read_genotype, read_run
from dnad_ray.search.prepare import PreparedRun, load_images, run_search
from dnad_ray.search.warm_start import inherited_weights
from dnad_ray.training.loop import train
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.board import Board


def searched(folder, config, seeds, recalibration):
    """Run the searches and return their snapshots, the key being trial and step."""
    config = with_overrides(config, {"evaluation.keep_weights": True, "evaluation.recalibration_images": recalibration})
    board = Board([])
    with run_folder(config, folder, False):
        data = load_images(config, board)
        for seed in seeds:
            spec = TrialSpec(f"t{seed:02d}", {"seed": seed}, with_overrides(config, {"seed": seed}))
            run_search(spec, PreparedRun(data, None), folder, board)
    return {(row["trial"], row["step"]): row for row in read_run(folder).snapshots}


def spread(rows, number):
    """Distinct networks, spread evenly over the logarithm of their cost as far as there are some."""
    distinct = list({row["digest"]: row for row in rows}.values())
    ordered = sorted(distinct, key=lambda row: row["macs"])
    places = np.linspace(0, len(ordered) - 1, min(number, len(ordered))).round().astype(int)
    return [ordered[place] for place in places]


def trained(spec, config, images, seed, inherited=b""):
    """Test accuracy, and what it took in seconds."""
    began = time.process_time()
    state = RetrainState(spec, config, images.data, seed)
    if inherited:
        state.inherit(inherited)
    for _ in train(state):
        pass
    return state.measure(), time.process_time() - began


def correlations(scores, truth, draws=2000):
    generator = np.random.default_rng(0)
    x, y = np.array(scores), np.array(truth)
    found = {}
    for name, measure in (("spearman", spearmanr), ("kendall", kendalltau)):
        samples = []
        for _ in range(draws):
            chosen = generator.integers(len(x), size=len(x))
            if len(set(x[chosen])) > 1 and len(set(y[chosen])) > 1:
                samples.append(float(measure(x[chosen], y[chosen]).statistic))
        low, high = np.percentile(samples, (5, 95))
        found[name] = {"value": float(measure(x, y).statistic), "low": float(low), "high": float(high)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--networks", type=int, default=12)
    parser.add_argument("--searches", type=int, default=2)
    parser.add_argument("--search-epochs", type=int, default=20)
    parser.add_argument("--short", type=int, default=2, help="epochs of fine-tuning and of short training")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of full retraining")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    overrides = {
        **resolve_data_argument(arguments.data),
        "train.epochs": arguments.search_epochs,
        "shrink.floor.operations": 8,
        "shrink.rate": 0.12,
        "distill.kind": "none",
        "distill.temperature": None,
    }
    if arguments.image_size:
        overrides["data.image_size"] = arguments.image_size
    config = with_overrides(recipe_named("demo"), overrides)
    began = time.process_time()
    with TemporaryDirectory() as name:
        root = Path(name)
        seeds = range(arguments.searches)
        plain = searched(root / "plain", config, seeds, 0)
        scored = searched(root / "recalibrated", config, seeds, 512)
        assert {k: r["digest"] for k, r in plain.items()} == {k: r["digest"] for k, r in scored.items()}
        search_seconds = time.process_time() - began
        images = load_retrain_images(config.data)
        full = with_settings(
            retrain_recipe("quick"), {"epochs": arguments.epochs, "device": "cpu", "recalibration_images": 512}
        )
        short = with_settings(full, {"epochs": arguments.short})
        # The peak step size of a training from scratch would first undo what was inherited.
        fine_tuning = with_settings(short, {"learning_rate": 0.01})
        rows = []
        picked = spread(scored.values(), arguments.networks)
        if len(picked) < 4:
            raise SystemExit(f"{len(picked)} different networks were found; more epochs of search would find more")
        for row in picked:
            genotype = read_genotype(root / "recalibrated", row["digest"])
            spec = NetworkSpec(origin="search", genotype=genotype, init_channels=config.space.init_channels)
            weights = inherited_weights(root / "recalibrated", row["trial"], row["step"])
            accuracies, spent = zip(
                *(trained(spec, full, images, seed) for seed in range(arguments.seeds)), strict=True
            )
            fine, fine_seconds = trained(spec, fine_tuning, images, 0, weights)
            cold, _ = trained(spec, short, images, 0)
            found = {
                "digest": row["digest"],
                "macs": costs_of(genotype, spec.shape(images.data.shape)).macs,
                "proxy": plain[row["trial"], row["step"]]["proxy_accuracy"],
                "recalibrated": row["proxy_accuracy"],
                "fine_tuned": fine,
                "short_from_scratch": cold,
                "full": list(accuracies),
                "full_seconds": statistics.fmean(spent),
                "fine_seconds": fine_seconds,
            }
            rows.append(found)
            print({**found, "digest": found["digest"][:6]}, flush=True)
    truth = [statistics.fmean(row["full"]) for row in rows]
    table = {
        name: correlations([row[name] for row in rows], truth)
        for name in ("macs", "proxy", "recalibrated", "short_from_scratch", "fine_tuned")
    }
    if arguments.seeds > 1:
        others = [statistics.fmean(row["full"][1:]) for row in rows]
        table["one seed of full retraining"] = correlations([row["full"][0] for row in rows], others)
    print(f"\n{len(rows)} networks, {arguments.epochs} epochs, {arguments.seeds} seeds, {arguments.data}")
    print(f"{'score':<28} {'Spearman (90 %)':<28} Kendall (90 %)")
    for name, entry in table.items():
        cells = [f"{e['value']:+.2f} ({e['low']:+.2f} .. {e['high']:+.2f})" for e in entry.values()]
        print(f"{name:<28} {cells[0]:<28} {cells[1]}")
    seconds = {
        "searches": search_seconds,
        "full": statistics.fmean(row["full_seconds"] for row in rows),
        "fine": statistics.fmean(row["fine_seconds"] for row in rows),
        "in all": time.process_time() - began,
    }
    print("CPU seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))
    if arguments.json:
        settings = {key: str(value) for key, value in vars(arguments).items()}
        result = {"settings": settings, "networks": rows, "correlations": table, "cpu_seconds": seconds}
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

"""How large the report of many snapshots is, how long it takes to write, and when a browser can use it.

    python benchmarks/report_size.py
    python benchmarks/report_size.py --snapshots 10000 --keep big --json report_size.json

A run of 200 trials (settings of KD temperature, weight and shrink rate, seeds) over networks of 14 cells of 4 nodes and
7 operations is made up with the real store: every snapshot in ``snapshots.parquet``, the epochs of each trial, and the
genotypes of the front, whose drawings are what weighs most. Then the report is opened in headless Chromium a few times.
``usable`` is when the front is drawn, a network is shown and clicks are answered, counted by the page itself from the
beginning of its navigation. Without Chromium and chromedriver only the first part is measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from analysis import front_of, write_report
from dnad_ray.config.run import RunConfig, config_to_dict
from dnad_ray.run_folder.snapshot_table import checked_record, table_of
from dnad_ray.run_folder.writing import create_run, write_history, write_status
from dnad_ray.storage.files import write_bytes
from search_spaces.genotype import NUM_INPUTS, CellGenotype, Edge, Genotype

READY = "return document.documentElement.dataset.readyAfter"
NUM_TRIALS, NUM_CELLS, NUM_NODES = 200, 14, 4
OPERATIONS = (
    *("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"),
    *("max_pool_3x3", "avg_pool_3x3", "skip_connect"),
)
EDGES = [
    (cell, node, Edge(operation, source))
    for cell in range(NUM_CELLS)
    for node in range(NUM_NODES)
    for source in range(NUM_INPUTS + node)
    for operation in OPERATIONS
]


def genotype_of(num_operations: int, rng: random.Random) -> Genotype:
    """A network of so many random edges."""
    chosen = rng.sample(EDGES, min(len(EDGES), num_operations))
    reductions = {NUM_CELLS // 3, 2 * NUM_CELLS // 3}
    cells = [[[] for _ in range(NUM_NODES)] for _ in range(NUM_CELLS)]
    for cell, node, edge in chosen:
        cells[cell][node].append(edge)
    return Genotype(
        tuple(
            CellGenotype(index in reductions, tuple(tuple(sorted(node)) for node in nodes))
            for index, nodes in enumerate(cells)
        )
    )


def make_run(folder: Path, num_snapshots: int) -> None:
    """Write the run: trials shrink from all edges to few, errors rise and answer to the settings."""
    rng = np.random.default_rng(0)
    grid = list(itertools.product((1.0, 2.0, 4.0, 8.0), (0.5, 1.0), (0.02, 0.05)))
    keys = ("distill.temperature", "distill.weight", "shrink.rate")
    config = {"sweep": {"grid": {key: tuple(sorted({s[i] for s in grid})) for i, key in enumerate(keys)}}}
    config |= {"distill": {"kind": "logits"}}
    create_run(folder, config_to_dict(RunConfig.model_validate(config)), "0.0.0")
    per_trial = num_snapshots // NUM_TRIALS
    rows = []
    for index in range(NUM_TRIALS):
        setting = grid[index % len(grid)]
        trial, seed = f"t{index:03d}", index // len(grid)
        luck = rng.normal(0, 0.006) + 0.004 * abs(np.log2(setting[0] / 4))
        history = []
        for epoch in range(1, per_trial + 1):
            share = float(np.exp(-3.5 * epoch / per_trial * (0.6 + 8 * setting[2])) * rng.uniform(0.97, 1.03))
            error = float(np.clip(0.05 + luck + 0.015 * share**-0.5 + rng.normal(0, 0.004), 0.001, 0.99))
            operations = max(12, int(len(EDGES) * share))
            common = {"step": 400 * epoch, "epoch": epoch, "num_operations": operations, "train_loss": 2.0 / epoch}
            common |= {"train_accuracy": 1 - error, "gamma": 0.1, "mu": 0.1, "sparsity": 900 * share}
            common |= {"device_seconds": 60.0 * epoch}
            history.append(common | {"kd_loss": 1.0 / epoch})
            macs = int(6e8 * share * rng.uniform(0.97, 1.03))
            rows.append(
                common
                | {"run": folder.name, "trial": trial, "seed": seed, "macs": macs, "macs_conv_linear": int(0.98 * macs)}
                | {"kind": "final" if epoch == per_trial else "pruned", "digest": f"{rng.integers(2**60):016x}"}
                | {
                    "params": int(macs / 150 * rng.uniform(0.9, 1.1)),
                    "proxy_accuracy": round((1 - error) * 5000) / 5000,
                }
                | {
                    "shrink_rate": setting[2],
                    "kd_kind": "logits",
                    "kd_temperature": setting[0],
                    "kd_weight": setting[1],
                }
                | {"device": "cpu", "dataset": "cifar10", "image_size": 32, "num_classes": 10, "init_channels": 36}
                | {"counter": "fvcore-0.1.5 total, eval", "costs_traced": False, "in_channels": 3}
            )
        overrides = dict(zip(keys, setting, strict=True)) | {"seed": seed}
        write_status(folder, trial, "finished", overrides=overrides)
        write_history(folder, trial, history)
    frame = pd.DataFrame(rows).assign(error=lambda f: 1 - f["proxy_accuracy"])
    plain = random.Random(0)
    for label in front_of(frame).index:
        genotype = genotype_of(int(frame.at[label, "num_operations"]), plain)
        rows[label]["digest"] = genotype.digest
        write_bytes(folder / "genotypes" / f"{genotype.digest}.json", genotype.to_json().encode())
    pq.write_table(table_of(map(checked_record, rows)), folder / "snapshots.parquet")


def open_report(file: Path, times: int) -> list[dict[str, float]]:
    """Open the report anew so often; milliseconds until it is usable, and until all that it drew then is there."""
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (chromium and driver):
        return []
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    found = []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as profile:
            options = webdriver.ChromeOptions()
            options.binary_location = chromium
            for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"):
                options.add_argument(argument)
            browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
            browser.set_window_size(1600, 1000)
            # Seconds of the processor beside those of the clock: the first do not grow when others use the machine.
            browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
            browser.get(file.resolve().as_uri())
            WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(READY))
            shown = browser.execute_script("return document.querySelectorAll('#picked-drawing svg').length")
            times_of_page = browser.execute_script("return document.documentElement.dataset")
            found.append({name: float(value) for name, value in times_of_page.items() if name.endswith("After")})
            metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
            busy = {entry["name"]: entry["value"] for entry in metrics}
            found[-1]["cpuAfter"] = 1000 * busy["TaskDuration"]
            assert shown > NUM_CELLS, "no drawing"
            browser.quit()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=5, help="how often the page is opened")
    parser.add_argument("--keep", type=Path, help="folder for the run and the report, new")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        parent = given.keep or Path(temporary)
        parent.mkdir(parents=True, exist_ok=True)
        make_run(parent / "many", given.snapshots)
        began = time.perf_counter()
        file = write_report(parent / "many", parent / "report.html")
        seconds = time.perf_counter() - began
        opened = open_report(file, given.times)
        size = file.stat().st_size
        networks = len(list((parent / "many" / "genotypes").iterdir()))
    usable = [entry["readyAfter"] / 1000 for entry in opened]
    result = {
        "snapshots": given.snapshots,
        "networks on the front": networks,
        "megabytes": round(size / 1e6, 3),
        "seconds to write": round(seconds, 2),
        "seconds until usable, median": round(statistics.median(usable), 2) if usable else None,
        "seconds until usable, all": [round(value, 2) for value in usable],
        "processor seconds of the page, median": round(statistics.median(e["cpuAfter"] for e in opened) / 1000, 2)
        if opened
        else None,
    }
    result |= {
        f"milliseconds, {name}": [entry.get(name) for entry in opened]
        for name in sorted({k for entry in opened for k in entry})
    }
    table = Table("what", "value", title="The report of many snapshots")
    for name, value in result.items():
        table.add_row(name, str(value))
    Console(width=120).print(table)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

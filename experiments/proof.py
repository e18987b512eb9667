"""Does shrinking plus imitating deliver? One command searches, retrains and compares all arms, and can be resumed.

    python experiments/proof.py digits --out runs/proof-digits
    python experiments/proof.py cifar10 --folder CIFAR10 --out runs/proof-cifar10
    python experiments/proof.py cifar10 --full --folder CIFAR10 --out runs/proof-full     # wants a GPU

CIFAR10 is an image folder with ``train/<class>/`` and ``test/<class>/``. Searches are those of ``dnad-ray
sweep``, teachers those of ``dnad-ray teacher``, and networks are trained as by ``dnad-ray retrain``, in run folders
below --out. All networks of a target are as wide as its multiply-adds allow, trained from scratch by one protocol under
the seed of their search, and measured once on the test images; nothing is chosen by test images. Said again, the
command goes on where it was stopped. ``proof_results.py`` makes the tables and charts.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

from proof_settings import ARMS, RESPONSES, SEARCHED, SETTINGS, Arm, Setting, changes_of

import dnad_ray as dr
from analysis import front_of, load_runs
from dnad_ray.commands.outcome import checked
from dnad_ray.commands.training import Training, train_networks
from dnad_ray.config.retrain import retrain_recipe, with_settings
from dnad_ray.config.run import RunConfig, config_from_dict, with_overrides
from dnad_ray.costs.table import costs_of
from dnad_ray.data.loading import load_data
from dnad_ray.errors import ConfigError
from dnad_ray.networks.search_space import space_of
from dnad_ray.networks.spec import NetworkSpec, scaled_to
from dnad_ray.retrain.data import RetrainImages
from dnad_ray.retrain.jobs import Job, job_of
from dnad_ray.retrain.one_level_darts import darts_genotype
from dnad_ray.retrain.plan import Request
from dnad_ray.retrain.random_networks import random_like
from dnad_ray.retrain.state import RetrainState
from dnad_ray.run_folder.reading import read_genotype, read_run
from dnad_ray.search.limits import PASSES_PER_STEP
from dnad_ray.storage.files import write_json
from dnad_ray.storage.places import place
from dnad_ray.training.loop import train
from search_spaces.json_reader import parse_json

BY_NAME = {arm.name: arm for arm in ARMS}


def main() -> None:
    options = parsed()
    setting = SETTINGS[f"{options.setting}-full" if options.full else options.setting]
    if setting.needs_folder and not (options.folder and all((options.folder / n).is_dir() for n in ("train", "test"))):
        raise SystemExit(f"--folder: got {options.folder}; allowed: an image folder with train/ and test/")
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    data = prepared_images(setting, options.folder, out)
    settings = {**setting.overrides, **({} if data is None else {"data.root": str(data)})}
    searches = {name: BY_NAME[name] for name in options.arms or setting.arms if name in SEARCHED}
    make_teachers(setting, settings, out, {arm.teacher for arm in searches.values()})
    for name, arm in searches.items():
        sweep(setting, settings, arm, out / name, out, options)
    config = config_of(out / next(iter(searches)))
    picks = picked(setting, config, out, list(searches), options)
    retrained(setting, config, picks, out, options)
    if options.responses:
        responses(setting, settings, config, picks, out, options)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=[name for name in SETTINGS if not name.endswith("-full")])
    parser.add_argument("--out", type=Path, required=True, help="folder of all run folders and results")
    parser.add_argument("--folder", type=Path, help="image folder with train/<class>/ and test/<class>/")
    parser.add_argument("--full", action="store_true", help="all images, the paper's space and protocol")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0, help="to ask once more what earlier seeds suggested")
    parser.add_argument("--arms", nargs="+", choices=list(BY_NAME), help="instead of those of the setting")
    parser.add_argument(
        "--responses", type=int, default=0, metavar="SEEDS", help="to KD temperature, weight and kind, rate and warm-up"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="for DARTS and random candidates")
    options = parser.parse_args()
    if options.full and f"{options.setting}-full" not in SETTINGS:
        parser.error(f"--full: got it with {options.setting}; allowed: with cifar10")
    if options.arms and "snps" not in options.arms and {"darts", "random", "random-best"} & {*options.arms}:
        parser.error(
            f"--arms: got {' '.join(options.arms)}; allowed: darts and random ones beside snps, like whose they are"
        )
    if options.arms and not {*SEARCHED} & {*options.arms}:
        parser.error(f"--arms: got {' '.join(options.arms)}; allowed: one of {', '.join(SEARCHED)} at least")
    return options


def prepared_images(setting: Setting, folder: Path | None, out: Path) -> Path | None:
    """Copy the subset that is stated, the first images of each class, and the teacher's own behind them."""
    if folder is None or setting.per_class is None:
        return folder
    first, last = setting.per_class, setting.per_class + setting.per_class_teacher
    for name, chosen in (("data", slice(0, first)), ("data-teacher", slice(first, last))):
        if not (out / name).exists():
            part = out / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            for split in ("train", "test"):
                for source in sorted((folder / split).iterdir()):
                    target = part / split / source.name
                    target.mkdir(parents=True)
                    files = sorted(source.iterdir())
                    for file in files[chosen] if split == "train" else files:
                        shutil.copy(file, target / file.name)
            part.rename(out / name)
    return out / "data"


def make_teachers(setting: Setting, settings: dict[str, Any], out: Path, wanted: set[str]) -> None:
    teachers = {"own": settings}
    if "strong" in wanted:
        teachers["strong"] = {**settings, "data.root": str(out / "data-teacher"), **setting.strong}
    for name, overrides in teachers.items():
        if not (out / "teachers" / name / "teacher.json").exists():
            print(f"teacher {name}", flush=True)
            dr.make_teacher(setting.recipe, set=overrides, out=out / "teachers" / name)


def sweep(
    setting: Setting,
    settings: dict[str, Any],
    arm: Arm,
    folder: Path,
    out: Path,
    options: argparse.Namespace,
    **more: Any,
) -> None:
    """Search one arm under all seeds, or go on with it."""
    overrides = {**settings, **(arm.overrides or {}), **more}
    if arm.teacher:
        saved = {"distill.teacher.source": "saved", "distill.teacher.weights": str(out / "teachers" / arm.teacher)}
        overrides = {k: v for k, v in overrides.items() if not k.startswith("distill.teacher.")} | saved
    print(f"sweep {folder}: {options.seeds} seeds", flush=True)
    run = dr.run_sweep(
        setting.recipe,
        set=overrides,
        trials=options.seeds,
        seed=options.first_seed,
        out=folder,
        resume=(folder / "run.json").exists(),
        no_ray=options.seeds == 1,  # a single trial would only wait for Ray's processes
        quiet=True,
    )
    ended(run.outcome)


def ended(outcome: dr.Outcome | None) -> None:
    """Leave where a part was interrupted; what failed raises."""
    if outcome is None or checked(outcome).state != "finished":
        raise SystemExit("interrupted; the same command goes on")


def seeds_of(options: argparse.Namespace) -> range:
    return range(options.first_seed, options.first_seed + options.seeds)


def config_of(folder: Path) -> RunConfig:
    return config_from_dict(read_run(folder).config, str(folder))


def compute_of(folder: Path, config: RunConfig) -> dict[int, float]:
    """Return for each seed the multiply-adds that its search spent on training.

    Snapshots are counted at the supernet's own width (see the settings). Between two of them the earlier network
    counts: what was deleted after it still ran for a part of that time.
    """
    num_images = len(search_images(config.data).train)
    images_per_step = num_images / -(-num_images // config.train.batch_size)
    found = {}
    rows = sorted(read_run(folder).snapshots, key=lambda row: row["step"])
    for seed in {row["seed"] for row in rows}:
        macs, step, spent = dense_macs(config), 0, 0.0
        for row in (row for row in rows if row["seed"] == seed):
            spent += macs * (row["step"] - step)
            macs, step = row["macs"], row["step"]
        found[seed] = PASSES_PER_STEP * images_per_step * spent
    return found


@functools.cache
def search_images(data: Any) -> Any:
    return load_data(data)


def dense_macs(config: RunConfig) -> int:
    genotype = space_of(config.space).dense()
    dense = NetworkSpec(origin="genotype", genotype=genotype, init_channels=config.space.init_channels)
    return costs_of(genotype, dense.shape(search_images(config.data).shape)).macs


def picked(
    setting: Setting, config: RunConfig, out: Path, searched: list[str], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return what each arm offers for each target under each seed, as plain data; nobody looks at test images."""
    file = out / "picks.json"
    old = parse_json(file.read_bytes(), file.name) if file.exists() else []
    done = {(pick["arm"], pick["seed"]) for pick in old}
    picks = list(old)
    for arm in searched:
        if missing := [seed for seed in seeds_of(options) if (arm, seed) not in done]:
            spent = compute_of(out / arm, config_of(out / arm))
            picks += [pick for seed in missing for pick in of_front(out / arm, arm, seed, setting, spent[seed])]
    of_snps = {(pick["seed"], pick["target"]): pick for pick in picks if pick["arm"] == "snps"}
    jobs = []
    wanted = options.arms or setting.arms
    for seed in seeds_of(options):
        for arm in ("darts", "random", "random-best"):
            if arm in wanted and (arm, seed) not in done:
                jobs.append((arm, seed, setting, config, [of_snps[seed, target] for target in setting.targets]))
        for arm in ("resnet18", "mobilenet_v3_small", "efficientnet_b0"):
            if arm in wanted and (arm, seed) not in done:
                spec = NetworkSpec(origin="torchvision", model=arm)
                picks += [pick_of(arm, seed, target, spec, None, 0.0, None) for target in setting.targets]
    write_json(place(file), picks)
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for found in pool.imap_unordered(other_arm, jobs):
            picks += found
            write_json(place(file), picks)
            print(f"{found[0]['arm']}, seed {found[0]['seed']}: chosen", flush=True)
    return picks


def pick_of(
    arm: str, seed: int, target: int, spec: NetworkSpec, proxy: float | None, compute: float, gap: Any
) -> dict[str, Any]:
    return {
        "arm": arm, "seed": seed, "target": target, "subject": spec.to_dict(), "proxy_accuracy": proxy,
        "search_macs": compute, "history": gap,
    }  # fmt: skip


def of_front(folder: Path, arm: str, seed: int, setting: Setting, compute: float) -> list[dict[str, Any]]:
    """Return for each target the network of the search's own front that is nearest to it in cost."""
    frame = load_runs(folder)
    frame = frame[frame["seed"] == seed]
    front = front_of(frame, ("error", "macs"))
    history = [
        [row.epoch, row.train_accuracy, row.proxy_accuracy, row.num_operations, row.macs]
        for row in frame.sort_values("step").itertuples()
    ]
    picks = []
    for target in setting.targets:
        row = front.loc[(front["macs"] / target).map(lambda ratio: max(ratio, 1 / ratio)).idxmin()]
        genotype = read_genotype(folder, row["digest"])
        spec = NetworkSpec(origin="search", genotype=genotype, init_channels=int(row["init_channels"]))
        picks.append(pick_of(arm, seed, target, spec, float(row["proxy_accuracy"]), compute, history))
    return picks


def other_arm(job: tuple[str, int, Setting, RunConfig, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Search an arm that is no sweep, with the compute of the search without a teacher under the same seed."""
    import torch

    torch.set_num_threads(1)
    arm, seed, setting, config, like = job
    compute, data = like[0]["search_macs"], search_images(config.data)
    models = [NetworkSpec.from_dict(pick["subject"]) for pick in like]
    if arm == "darts":
        dense = dense_macs(config)
        epochs = max(1, round(compute / (PASSES_PER_STEP * len(data.train) * dense)))
        history: list[list[float]] = []
        genotype = darts_genotype(
            with_overrides(config, {"train.epochs": epochs, "train.warmup_epochs": 0}),
            data,
            seed,
            on_epoch=lambda epoch: history.append([*epoch]),
        )
        spec = NetworkSpec(origin="darts", genotype=genotype, init_channels=config.space.init_channels)
        spent = float(PASSES_PER_STEP * len(data.train) * dense * epochs)
        return [pick_of(arm, seed, target, spec, None, spent, history) for target in setting.targets]
    images, space = data.shape, space_of(config.space)
    drawn = functools.partial(random_like, space=space, images=images)
    if arm == "random":
        chosen = [(drawn(model, seed=seed), None, 0.0) for model in models]
    else:
        chosen = best_of_random(models, drawn, setting, data, compute, seed)
    return [
        pick_of(arm, seed, target, spec, proxy, spent, None)
        for target, (spec, proxy, spent) in zip(setting.targets, chosen, strict=True)
    ]


def best_of_random(
    models: list[NetworkSpec], drawn: Any, setting: Setting, data: Any, compute: float, seed: int
) -> list[tuple[NetworkSpec, float, float]]:
    """Train random candidates for a few epochs as long as the compute lasts; keep the best on validation images."""
    protocol = with_settings(
        retrain_recipe(setting.retrain_recipe), {**setting.retrain, "epochs": setting.short_epochs}
    )
    of_one = PASSES_PER_STEP * len(data.train) * setting.short_epochs
    number = max(1, round(compute / (of_one * sum(setting.targets))))
    found = []
    for model, target in zip(models, setting.targets, strict=True):
        scored = []
        for index in range(number):
            spec = drawn(model, seed=1000 * (seed + 1) + index)
            state = RetrainState(scaled_to(spec, data.shape, max_macs=target), protocol, data, seed)
            for _ in train(state):
                pass
            scored.append((state.measure(), spec))
        proxy, spec = max(scored, key=lambda entry: entry[0])
        found.append((spec, proxy, float(of_one * sum(setting.targets) * number)))
    return found


def retrained(
    setting: Setting,
    config: RunConfig,
    picks: list[dict[str, Any]],
    out: Path,
    options: argparse.Namespace,
    name: str = "networks",
) -> None:
    """Train every pick from scratch by one protocol, seed by seed, and write down which job is whose."""
    protocol = with_settings(retrain_recipe(setting.retrain_recipe), setting.retrain)
    request = Request(config=protocol, recipe=setting.retrain_recipe)
    index: list[dict[str, Any]] = []

    def plan(images: RetrainImages, *_: Any) -> list[Job]:
        jobs = {}
        for pick in sorted(picks, key=lambda pick: (pick["seed"], pick["target"])):
            if pick["seed"] not in seeds_of(options):
                continue
            entry = {key: value for key, value in pick.items() if key not in ("subject", "history")}
            try:
                spec = scaled_to(NetworkSpec.from_dict(pick["subject"]), images.data.shape, max_macs=pick["target"])
            except ConfigError as error:
                index.append({**entry, "job": None, "reason": str(error)})
                continue
            job = job_of(
                spec,
                request.config,
                request.recipe,
                pick["seed"],
                config.data,
                proxy_accuracy=pick["proxy_accuracy"],
            )
            jobs[job.name] = job
            index.append({**entry, "job": job.name, "digest": spec.digest})
        write_json(place(out / f"{name}.json"), index)
        return list(jobs.values())

    ended(train_networks(plan, request, config, place(out / name), Training(quiet=True)))


def responses(
    setting: Setting,
    settings: dict[str, Any],
    config: RunConfig,
    picks: list[dict[str, Any]],
    out: Path,
    options: argparse.Namespace,
) -> None:
    """Search one setting away from dnad, and retrain at the middle target."""
    mine = argparse.Namespace(**{**vars(options), "seeds": options.responses})
    dnad, target = BY_NAME["dnad"], setting.targets[len(setting.targets) // 2]
    found = [pick for pick in picks if pick["arm"] in ("dnad", "snps") and pick["target"] == target]
    for name in RESPONSES:
        folder = out / "responses" / name.replace(" ", "-")
        sweep(setting, settings, dnad, folder, out, mine, **changes_of(name, config))
        spent = compute_of(folder, config_of(folder))
        for seed in seeds_of(mine):
            found += [p for p in of_front(folder, name, seed, setting, spent[seed]) if p["target"] == target]
    retrained(setting, config, found, out, mine, "responses-networks")


if __name__ == "__main__":
    main()

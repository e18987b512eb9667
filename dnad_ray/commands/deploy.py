"""Export of trained networks, and measurement of latency and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch

from dnad_ray.commands.options import AnyPath
from dnad_ray.commands.outcome import Outcome
from dnad_ray.commands.search import shown
from dnad_ray.config.run import RunConfig, config_from_dict, with_overrides
from dnad_ray.data.loading import resolve_data_argument
from dnad_ray.deploy.benchmark import BenchmarkRow, benchmark_network, num_images_for
from dnad_ray.deploy.export import export_int8, export_network
from dnad_ray.deploy.formats import FORMATS
from dnad_ray.deploy.int8 import Agreement
from dnad_ray.deploy.measure import measure as measured
from dnad_ray.deploy.predict import Model, open_model
from dnad_ray.deploy.run_networks import networks_of
from dnad_ray.deploy.suffixes import INT8, INT8_SUFFIX
from dnad_ray.errors import ConfigError, RunFolderError
from dnad_ray.networks.network_file import DESCRIPTION, TrainedNetwork, read_network
from dnad_ray.retrain.data import RetrainImages, load_retrain_images
from dnad_ray.run_folder.images import read_images
from dnad_ray.run_folder.jobs import read_retrained
from dnad_ray.run_folder.layout import config_file, is_safe_name, job_folder, measured_folder
from dnad_ray.run_folder.lock import writing_to
from dnad_ray.run_folder.reading import is_run, read_run, run_name
from dnad_ray.run_folder.writing import write_measurement
from dnad_ray.runtime.devices import device_for
from dnad_ray.storage.places import Place, absolute, address, place

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Exported", "Under", "benchmark", "budgets_of", "export", "load_model", "measure"]

Under: TypeAlias = "Mapping[str, str | float] | str | Sequence[str]"
"""Budgets by metric: ``{"macs": "30M", "params": 500_000}``, or texts as on the command line, ``"macs=30M"``."""


class Exported(NamedTuple):
    """The result of an export.

    Attributes:
        files: The files, the model first.
        difference: Largest difference between the logits of the network and those of the exported file.
        digest: Digest of the network.
        facts: Its accuracy, its costs, and the job that trained it.
        agreement: Of a quantised network: how it classifies images, compared with the float network. None for others.
    """

    files: tuple[Path, ...]
    difference: float
    digest: str
    facts: Mapping[str, Any]
    agreement: Agreement | None = None


def export(
    source: AnyPath,
    out: AnyPath | None = None,
    *,
    format: str | None = None,
    digest: str | None = None,
    job: str | None = None,
    under: Under = (),
    data: AnyPath | None = None,
) -> Exported:
    """Write a retrained network as ONNX, torch.export, safetensors or a Python module, verified, with a model card.

    ``onnx-int8`` is quantised to 8 bits: at most 256 training images calibrate it, and its classes are compared with
    those of the float network on the test images (on the validation images, if the data have no test images).

    Args:
        source: A run folder, or the folder ``retrained/JOB`` of one.
        out: The file. None is ``network_DIGEST_JOB`` with the suffix of the format, in the current folder.
        format: ``onnx``, ``onnx-int8``, ``openvino``, ``torch-export``, ``safetensors`` or ``python``. None
            takes it from the suffix of ``out``, or is ``onnx``.
        digest: Beginning of the digest of the network in the run.
        job: The job of the run that trained the network.
        under: Only networks of the run within these budgets. The most accurate of the remaining networks is exported.
        data: For ``onnx-int8``: the images, a folder or a named dataset. None are those that the run has.

    Raises:
        UserError: If there is no such network, or the file cannot be written in that format.
    """
    kind = format or _kind_of(out)
    if kind not in (*FORMATS, INT8):
        raise ConfigError("--format", kind, ", ".join((*FORMATS, INT8)))
    if data is not None and kind != INT8:
        raise ConfigError("--data", str(data), f"nothing with --format {kind}: only {INT8} needs images")
    trained = _trained_network(place(source), digest, job, budgets_of(under))
    suffix = INT8_SUFFIX if kind == INT8 else FORMATS[kind].suffix
    target = Path(str(out)) if out is not None else _usual_name(trained, suffix)
    if kind == INT8:
        images = _images_of(trained, place(source), data).data
        written = export_int8(trained, target, images.train, images.validation)
    else:
        written = export_network(trained, kind, target)
    return Exported(written.files, written.difference, trained.spec.digest, trained.facts, written.agreement)


def load_model(model: str | PathLike[str]) -> Model:
    """Open an exported network; nothing in it can execute code.

    Args:
        model: An .onnx file, a .safetensors file with its .json, or a folder ``retrained/JOB`` of a run.

    Raises:
        UserError: If it is no exported network, damaged, or of a format whose reader is not installed.
    """
    return open_model(Path(model))


def measure(
    run: AnyPath,
    *,
    digest: str | Sequence[str] = (),
    batch: int = 1,
    repeats: int = 50,
    threads: int = 1,
    device: str = "auto",
    runtime: str = "torch",
) -> Outcome:
    """Measure latency and peak memory of a run's front and of its retrained networks, on this machine.

    Args:
        run: The run folder, where the measurements are kept.
        digest: Only networks whose digests start with this.
        batch: Images per batch.
        repeats: Number of timed batches.
        threads: Number of CPU threads.
        device: ``auto``, ``cpu`` or ``cuda``.
        runtime: ``torch``, or ``onnxruntime`` on a CPU.

    Returns:
        How it ended; ``front`` has a row per measured network.

    Raises:
        UserError: If an argument is impossible.
    """
    from analysis import front_of, load_runs, to_records

    folder = absolute(place(run))
    if not is_run(folder):
        raise RunFolderError("RUN", address(folder), "a run folder")
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ConfigError("--device", device, "auto or cpu, or cuda where torch finds a GPU")
    contents = read_run(folder)
    config = config_from_dict(contents.config, address(config_file(folder)))
    specs = networks_of(folder, config, to_records(front_of(load_runs(contents))))
    digests = (digest,) if isinstance(digest, str) else tuple(digest)
    wanted = [pair for pair in specs if not digests or any(pair[0].digest.startswith(begin) for begin in digests)]
    if not wanted:
        raise RunFolderError("--digest", ", ".join(digests), ", ".join(sorted({pair[0].digest for pair in specs})))
    rows = []
    with shown("people") as board, writing_to(folder):
        for spec, images in wanted:
            result = measured(
                spec,
                images,
                device_for(device),
                run=run_name(folder),
                batch_size=batch,
                repeats=repeats,
                threads=threads,
                runtime=runtime,
            )
            write_measurement(folder, result)
            rows.append(result.to_dict())
            board.say(
                f"{spec.model} {spec.digest} C {spec.init_channels}: {result.latency_p50:.3f} ms (p90 "
                f"{result.latency_p90:.3f}, p99 {result.latency_p99:.3f}), {result.peak_memory / 2**20:.2f} MiB"
            )
    return Outcome(state="finished", front=_frame(rows), paths={"run": folder, "measured": measured_folder(folder)})


def benchmark(
    run: AnyPath,
    *,
    job: str | Sequence[str] = (),
    images: int | None = None,
    repeats: int = 200,
    threads: int = 1,
    data: AnyPath | None = None,
) -> list[BenchmarkRow]:
    """Measure size, accuracy and latency of trained networks in every format on this machine; nothing is written.

    Args:
        run: A run folder with retrained networks, or the folder ``retrained/JOB`` of one.
        job: Jobs of the run. Without one: the networks that no other one beats in accuracy and multiply-adds.
        images: Number of test images at most (validation images, if the data have no test images). None is as many as
            take 2e11 multiply-adds, and at least 500.
        repeats: Timed runs of one image.
        threads: Number of CPU threads.
        data: The images, a folder or a named dataset. None are those of the run.

    Returns:
        A row per network and format.

    Raises:
        UserError: If an argument is impossible, or the images are not those of the networks.
    """
    numbers = {"--images": (images, 10**9), "--repeats": (repeats, 100_000), "--threads": (threads, 1024)}
    for name, (value, most) in numbers.items():
        if value is not None and not 1 <= value <= most:
            raise ConfigError(name, value, f"1 to {most:,}")
    folder = place(run)
    jobs = (job,) if isinstance(job, str) else tuple(job)
    if is_run(folder) and not jobs:
        jobs = _jobs_on_front(folder)
    networks = [_trained_network(folder, None, one, {}) for one in dict.fromkeys(jobs or (None,))]
    rows: list[BenchmarkRow] = []
    loaded: dict[Any, RetrainImages] = {}
    for trained in networks:
        key = (trained.images, trained.classes, trained.facts.get("images"))
        if key not in loaded:
            loaded[key] = _images_of(trained, folder, data)
        held = loaded[key].data
        number = num_images_for(trained.facts.get("macs"), len(held.validation), images)
        rows += benchmark_network(trained, held, images=number, repeats=repeats, threads=threads)
    return rows


def _jobs_on_front(run: Place) -> tuple[str, ...]:
    """Return the jobs of a run whose networks no other one beats in accuracy and multiply-adds, the largest last."""
    records, _ = read_retrained(run)
    if not records:
        raise RunFolderError("RUN", address(run), "a run with retrained networks: `dnad-ray retrain` comes first")
    kept, best = [], -1.0
    for record in sorted(_of_own_images(run, records), key=lambda entry: (entry["macs"], -entry["accuracy"])):
        if record["accuracy"] > best:
            kept.append(record["job"])
            best = record["accuracy"]
    return tuple(kept)


def budgets_of(under: Under) -> dict[str, float]:
    """Return the budgets by metric.

    Raises:
        UserError: If a metric is unknown, or a budget is no number.

    >>> budgets_of({"macs": "30M", "params": 500_000}), budgets_of("error=5%"), budgets_of(["macs=2k"])
    ({'macs': 30000000.0, 'params': 500000.0}, {'error': 0.05}, {'macs': 2000.0})
    """
    from analysis import parse_budget

    if isinstance(under, Mapping):
        return dict(parse_budget(f"{name}={limit}") for name, limit in under.items())
    return dict(map(parse_budget, [under] if isinstance(under, str) else under))


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    frame: pd.DataFrame = pd.DataFrame(rows)
    return frame


def _kind_of(out: AnyPath | None) -> str:
    if out is not None and str(out).endswith(INT8_SUFFIX):
        return INT8
    suffix = "" if out is None else Path(str(out)).suffix
    return next((kind for kind, form in FORMATS.items() if form.suffix == suffix), "onnx")


def _usual_name(trained: TrainedNetwork, suffix: str) -> Path:
    # With the job, as several may have trained one network; the file may come from somewhere else and name none.
    job = str(trained.facts.get("job", ""))
    return Path(f"network_{trained.spec.digest}{f'_{job}' if is_safe_name(job) else ''}{suffix}")


def _trained_network(source: Place, digest: str | None, job: str | None, under: dict[str, float]) -> TrainedNetwork:
    """Return the network of a job's folder, or the requested network of a run, by default its most accurate one."""
    if (source / DESCRIPTION).is_file():
        return read_network(source)
    if not is_run(source):
        raise RunFolderError("SOURCE", address(source), "a run folder, or a folder retrained/<job> of one")
    return read_network(job_folder(source, _record(source, digest, job, under)["job"]))


def _images_of(trained: TrainedNetwork, source: Place, data: AnyPath | None) -> RetrainImages:
    """Return the images that a network was trained on and those to measure it with, in its size.

    Args:
        trained: The network.
        source: Its run, or its folder ``retrained/JOB`` there.
        data: Other images, or None.

    Raises:
        UserError: If they cannot be loaded, or are not those of the network.
    """
    run = next((folder for folder in (source, source.parent.parent) if is_run(folder)), None)
    if run is None and data is None:
        raise ConfigError("--data", None, "the images of the network: a folder or a dataset; it lies in no run folder")
    contents = {} if run is None else read_run(run).config
    config = RunConfig() if run is None else config_from_dict(contents, address(config_file(run)))
    overrides = {"data.image_size": trained.images.image_size, "data.download": False}
    config = with_overrides(config, overrides | ({} if data is None else resolve_data_argument(str(data))))
    images = load_retrain_images(config.data)
    if images.data.classes != trained.classes or images.data.in_channels != trained.images.in_channels:
        given = (
            f"{images.data.name}: {images.data.in_channels} channels, classes {', '.join(images.data.classes)[:200]}"
        )
        allowed = f"images of {trained.images.in_channels} channels, of the classes of the network"
        raise ConfigError("--data", given, allowed)
    known, record = str(trained.facts.get("images", "")), images.data.record
    if data is None and known and record is not None and record.digest != known:
        allowed = "the images that the network was trained on; those of the run folder are others now"
        raise ConfigError("--data", None, allowed)
    return images


def _of_own_images(run: Place, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the networks that were trained on the run's own images; on others, an accuracy means something else.

    Raises:
        RunFolderError: If there is none, and the others are of several datasets.
    """
    own, ours = read_images(run), list[tuple[Any, ...]]()
    names: tuple[str, ...] = ("images",)
    if own is not None:
        ours = [(own.digest,)]
    else:  # a run of a version that kept no record: what its searches say of the images, if it has any
        names = ("dataset", "image_size", "num_classes")
        ours = [tuple(row[name] for name in names) for row in read_run(run).snapshots[:1]]
    kinds = {record["job"]: tuple(record[name] for name in names) for record in records}
    kept = [record for record in records if kinds[record["job"]] in ours]
    if not kept and len({*kinds.values()}) > 1:
        jobs = ", ".join(sorted(kinds))
        raise RunFolderError("SOURCE", address(run), f"--job with one of {jobs}: they are of several sets of images")
    return kept or records


def _record(run: Place, digest: str | None, job: str | None, under: dict[str, float]) -> dict[str, Any]:
    from analysis import within
    from analysis.objectives import best_values

    records, _ = read_retrained(run)
    wanted = [r for r in records if r["digest"].startswith(digest or "") and job in (None, r["job"])]
    if not records:
        raise RunFolderError("SOURCE", address(run), "a run with retrained networks: `dnad-ray retrain` comes first")
    if job is None and wanted:
        wanted = _of_own_images(run, wanted)
    if not wanted:
        option, given, name = ("--digest", digest, "digest") if job is None else ("--job", job, "job")
        known = sorted({record[name] for record in records})
        raise RunFolderError(option, given, f"one of the retrained networks: {', '.join(known)}")
    frame = _frame(wanted)
    kept = [wanted[label] for label in within(frame, under).index]
    if not kept:
        limits = ", ".join(f"{name}={limit:g}" for name, limit in under.items())
        best = best_values(frame, under)
        raise RunFolderError("--under", limits, f"what a retrained network keeps; the best values are {best}")
    return max(kept, key=lambda record: float(record["accuracy"]))

"""A search that is real in everything but size: few digits, 45 candidates, some two dozen steps."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing.context
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import psutil
import pytest
import torch
import yaml
from PIL import Image

from dnad_ray import cli
from dnad_ray.config.run import (
    DataConfig,
    DistillConfig,
    EvaluationConfig,
    FloorConfig,
    RunConfig,
    ShrinkConfig,
    SpaceConfig,
    TeacherConfig,
    TrainConfig,
    config_from_dict,
    config_to_dict,
    with_overrides,
)
from dnad_ray.data.loading import ImageData, Split, load_data
from dnad_ray.distill.teacher import Teacher, load_teacher, read_teacher
from dnad_ray.distill.teacher_sources import train_teacher
from dnad_ray.run_folder.reading import read_run
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.search.loop import SearchState, search
from dnad_ray.training.optimizers import SGD, Adam
from dnad_ray.trials.spec import trials_of
from dnad_ray.watch.board import Board

SWEEP_SECONDS = 420  # after which a sweep of seconds hangs
# A look at all processes of the machine takes milliseconds of a core that the sweep needs.
LOOK_SECONDS = 0.3

TinyConfig = Callable[..., RunConfig]
Result = tuple[int, str, str]


def part_of(split: Split, size: int) -> Split:
    """The first images, read-only as those from Ray's object store."""
    images, labels = split.images[:size].copy(), split.labels[:size].copy()
    images.flags.writeable = labels.flags.writeable = False
    return Split(images=images, labels=labels)


@pytest.fixture(scope="session")
def digits() -> ImageData:
    """192 training and 128 validation images: 3 steps per epoch."""
    full = load_data(DataConfig())
    return dataclasses.replace(full, train=part_of(full.train, 192), validation=part_of(full.validation, 128))


@pytest.fixture(scope="session")
def tiny() -> TinyConfig:
    """Configurations whose search goes from 45 candidates to 8, with all three kinds of snapshots on the way."""
    base = RunConfig(
        space=SpaceConfig(
            operations=("sep_conv_3x3", "max_pool_3x3", "skip_connect"), num_cells=3, num_nodes=2, init_channels=4
        ),
        train=TrainConfig(
            epochs=6,
            warmup_epochs=1,
            batch_size=64,
            learning_rate=3e-3,
            betas=(0.9, 0.999),
            arch_learning_rate=0.5,
            arch_momentum=0.5,
            device="cpu",
        ),
        shrink=ShrinkConfig(
            pressure="paper",  # whose stalls come early; the other form has tests of its own
            criterion="weight",
            rate=0.3,
            gamma_init=0.3,
            gamma_max=0.5,
            gamma_growth=4,
            mu=1.0,
            stall_epochs=0.6,
            floor=FloorConfig(operations=8),
        ),
        distill=DistillConfig(kind="none", teacher=TeacherConfig(init_channels=4, epochs=2)),
        evaluation=EvaluationConfig(init_channels=4, recalibration_images=64, ladder=False),
    )

    def config(overrides: Mapping[str, Any] | None = None) -> RunConfig:
        return with_overrides(base, overrides or {})

    return config


@pytest.fixture(scope="session")
def small_teacher(tiny: TinyConfig, digits: ImageData) -> Teacher:
    return train_teacher(tiny(), digits, torch.device("cpu"))


@pytest.fixture(scope="session")
def a_snapshot() -> Snapshot:
    """A record to make others from by ``dataclasses.replace``; the genotype it names is none."""
    return Snapshot(
        run="demo",
        trial="t00",
        seed=3,
        step=24,
        epoch=2,
        kind="pruned",
        digest="0123456789abcdef",
        num_operations=9,
        macs=1000,
        macs_conv_linear=900,
        params=100,
        proxy_accuracy=0.5,
        train_loss=1.25,
        train_accuracy=0.4,
        shrink_rate=0.25,
        kd_kind="logits",
        kd_temperature=4.0,
        kd_weight=0.3,
        gamma=0.2,
        mu=1.0,
        sparsity=30.0,
        device_seconds=1.5,
        device="cpu",
        dataset="digits",
        image_size=8,
        num_classes=10,
        init_channels=8,
        counter="fvcore",
        costs_traced=True,
        in_channels=1,
    )


@pytest.fixture
def host_reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], contextlib.AbstractContextManager[list[str]]]:
    """Notes in a block how the host asks for a number, for which it would wait for a GPU; optimizers do not count.

    Those of torch count their steps in tensors that are always on the host.
    """

    @contextlib.contextmanager
    def noted() -> Iterator[list[str]]:
        reads: list[str] = []
        with monkeypatch.context() as patch:
            for optimizer in (Adam, SGD):
                patch.setattr(optimizer, "step", lambda self: None)
            for name in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__"):
                original = getattr(torch.Tensor, name)

                def read(tensor: torch.Tensor, name: str = name, original: Any = original) -> Any:
                    reads.append(name)
                    return original(tensor)

                patch.setattr(torch.Tensor, name, read)
            yield reads

    return noted


def without_seconds(record: Snapshot | Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal when a search is repeated: all but the time it took."""
    data = record.to_dict() if isinstance(record, Snapshot) else dict(record)
    return {key: value for key, value in data.items() if key != "device_seconds"}


@pytest.fixture(scope="session")
def timeless() -> Callable[[Any], list[dict[str, Any]]]:
    """Records without the time they took; epoch reports, which have no kind, are left out."""

    def records(events: Any) -> list[dict[str, Any]]:
        return [without_seconds(event) for event in events if isinstance(event, Snapshot | Mapping)]

    return records


@pytest.fixture(scope="session")
def save_digits(digits: ImageData) -> Callable[..., None]:
    """Writes ``size`` digits of each class as PNG files into class folders below ``root``."""

    def save(root: Path, size: int, first: int = 0) -> None:
        for label in range(10):
            (root / str(label)).mkdir(parents=True)
            (members,) = np.nonzero(digits.train.labels == label)
            for index in members[first : first + size]:
                Image.fromarray(digits.train.images[index, 0]).save(root / str(label) / f"{index}.png")

    return save


@pytest.fixture(scope="session")
def pictures(save_digits: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One hundred digits as an image folder."""
    root = tmp_path_factory.mktemp("pictures") / "digits"
    save_digits(root, 10)
    return root


@pytest.fixture(scope="session")
def config_file(tiny: TinyConfig, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of one's own, for images of one's own."""
    config = tiny({"data.name": "imagefolder", "data.root": str(pictures), "train.batch_size": 24})
    path = tmp_path_factory.mktemp("config") / "mine.yaml"
    path.write_text(yaml.safe_dump(config_to_dict(config)))
    return path


@pytest.fixture
def quiet_board() -> Board:
    """A board that nobody sees."""
    return Board([])


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run the command in this process; returns exit code, standard output and standard error."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["dnad-ray", *map(str, arguments)])
        handler = signal.getsignal(signal.SIGINT)
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            signal.signal(signal.SIGINT, handler)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A default such as ``runs/`` must never land in the checkout."""
    monkeypatch.chdir(tmp_path)


LOADED = ("analysis", "dnad_ray.commands.run", "dnad_ray.on_ray.sweep", "dnad_ray.on_ray.retrain_jobs", "plotly.io")
TRACKERS = ("ray.air.integrations.mlflow", "ray.air.integrations.wandb")  # Tune imports all that are there


@pytest.fixture(scope="session")
def fork_server() -> multiprocessing.context.ForkServerContext:
    """Forks processes that have loaded what a command needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*LOADED, *TRACKERS])
    return context


@final
class Started:
    """A command in a process of its own, with what :class:`subprocess.Popen` offers.

    Args:
        server: Forks the process.
        arguments: Those of ``dnad-ray``.
        folder: Where its outputs are kept.
        variables: Environment variables besides those of the tests.
    """

    def __init__(
        self,
        server: multiprocessing.context.ForkServerContext,
        arguments: Sequence[object],
        folder: Path,
        variables: Mapping[str, str],
    ) -> None:
        self._files = [Path(tempfile.mkstemp(prefix=f"{name}-", dir=folder)[1]) for name in ("out", "err")]
        call = {
            "arguments": [*map(str, arguments)],
            "folder": str(Path.cwd()),
            "environment": {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | variables,
            "threads": torch.get_num_threads(),
            "out": str(self._files[0]),
            "err": str(self._files[1]),
        }
        program = str(Path(__file__).with_name("loaded_command.py"))
        self._process = server.Process(target=runpy.run_path, args=(program, {"call": call}, "__main__"))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; returns standard output and standard error."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError([file.read_text() for file in self._files])
        said, err = (file.read_text() for file in self._files)
        return said, err


@pytest.fixture
def start(fork_server: multiprocessing.context.ForkServerContext, tmp_path: Path) -> Callable[..., Started]:
    """Starts ``dnad-ray`` with arguments in a process of its own, as a user does."""

    def begin(*arguments: object, **variables: str) -> Started:
        return Started(fork_server, arguments, tmp_path, variables)

    return begin


@final
class Sweep:
    """A sweep as its user starts it, and all processes that it ever started."""

    def __init__(self, start: Callable[..., Started], *arguments: object, out: Path, **variables: str) -> None:
        self.out = out
        self.driver = start("sweep", *arguments, "--out", out, **variables)
        self.began = self.looked = time.monotonic()
        self.processes: dict[int, psutil.Process] = {}

    def watch(self, at_once: bool = True) -> None:
        """Remember the descendants of the driver: those of a killed one are nobody's children."""
        if not at_once and time.monotonic() - self.looked < LOOK_SECONDS:
            return
        self.looked = time.monotonic()
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.driver.pid).children(recursive=True):
                self.processes[process.pid] = process

    def wait_for(self, found: Callable[[], Any]) -> Any:
        """Wait until something is found; returns it."""
        while not (result := found()):
            self.watch(at_once=False)
            assert self.driver.poll() is None, self.driver.communicate()
            assert time.monotonic() - self.began < SWEEP_SECONDS
            time.sleep(0.05)
        self.watch()
        return result

    def wait(self) -> tuple[int, str, str, float]:
        """Wait for the end; returns exit code, standard output, standard error and seconds."""
        while self.driver.poll() is None:
            self.watch(at_once=False)
            assert time.monotonic() - self.began < SWEEP_SECONDS
            time.sleep(0.05)
        said, err = self.driver.communicate(timeout=30)
        return self.driver.returncode, said, err, time.monotonic() - self.began

    def snapshots(self, trial: str) -> list[Path]:
        """The files of what a trial has recorded, whichever command it was."""
        return sorted((self.out / "trials" / trial / "snapshots").glob("*.json"))

    def process_named(self, beginning: str) -> psutil.Process | None:
        """A running worker whose name begins like that, None while there is none."""
        for process in self.processes.values():
            with contextlib.suppress(psutil.Error):
                if process.is_running() and process.cmdline()[:1] and process.cmdline()[0].startswith(beginning):
                    return process
        return None

    def trial_process(self) -> psutil.Process | None:
        """The process of a running trial, None while there is none."""
        return self.process_named("ray::ImplicitFunc.train")

    def clean_up(self) -> None:
        """End what is left, by its id: others on this machine may have a Ray of their own."""
        self.watch()
        if self.driver.poll() is None:
            self.driver.kill()
        for process in self.processes.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # psutil makes sure that the id is still that process's
        psutil.wait_procs(list(self.processes.values()), timeout=20)
        self.driver.communicate()


@pytest.fixture
def sweep(start: Callable[..., Started]) -> Iterator[Callable[..., Sweep]]:
    """Starts sweeps; what is left of them ends with the test."""
    started = []

    def begin(*arguments: object, out: Path, **variables: str) -> Sweep:
        started.append(Sweep(start, *arguments, out=out, **variables))
        return started[-1]

    yield begin
    for entry in started:
        entry.clean_up()


@pytest.fixture
def sweep_file(tiny: TinyConfig, tmp_path: Path) -> Callable[..., Path]:
    """Writes the configuration of a sweep; a longer one has not finished while parts of it are killed."""
    longer = {
        "data.image_size": 14,
        "space.init_channels": 8,
        "train.epochs": 16,
        "shrink.rate": 0.1,
        "shrink.floor.operations": 4,
    }

    def write(overrides: Mapping[str, Any], is_longer: bool = False) -> Path:
        path = tmp_path / "mine.yaml"
        config = tiny({"train.batch_size": 384, **(longer if is_longer else {}), **overrides})
        path.write_text(yaml.safe_dump(config_to_dict(config)))
        return path

    return write


@pytest.fixture
def undisturbed(timeless: Callable[[Any], list[dict[str, Any]]]) -> Callable[[Path, str], list[dict[str, Any]]]:
    """The records of the same trial, searched in this process without a break."""

    def records(out: Path, trial: str) -> list[dict[str, Any]]:
        contents = read_run(out)
        config = config_from_dict(contents.config)
        data, file = load_data(config.data), read_teacher(out / "teacher")
        teacher = None if file is None else load_teacher(file, torch.device("cpu"))
        (spec,) = (spec for spec in trials_of(config) if spec.name == trial)
        return timeless(search(SearchState.start(spec.config, data, teacher, run=out.name, trial=trial)))

    return records

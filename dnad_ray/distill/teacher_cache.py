"""A cache of the teacher's outputs, one file per node, for all trials of a sweep that train on the same images.

Order and augmentation of the training images are a pure function of seed and step (:mod:`dnad_ray.data.batches`), so
the teacher's outputs can be cached. Without augmentation, one pass of the teacher over the training images serves all
epochs of all trials. With augmentation, each step of each seed has its own images; trials of one seed share the
outputs, and the first trial that reaches a step computes them.

On a CPU, a search with the cache has the same bits as one without it: batches have the same size, and the output for
an image does not depend on the other images of the batch (tested with networks of ours and torchvision's; another
kernel could break it). The content of the cache does not depend on which trial came first: it is computed in the order
of the images, or in batches that are the same in all trials.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dnad_ray.config.run import RunConfig
from dnad_ray.data.batches import TrainingBatches, evaluation_batches
from dnad_ray.data.images import Augmentation
from dnad_ray.data.loading import ImageData
from dnad_ray.distill.teacher import Teacher
from dnad_ray.runtime.devices import MEMORY_FORMAT
from dnad_ray.runtime.processes import ALONE, Ranks
from dnad_ray.storage.places import Place
from search_spaces.network import NetworkOutput

__all__ = ["TeacherCache", "clear_cache", "open_cache"]

_FOLDER = ".teacher-cache"
_BYTES = 4  # size of a float32

Rows = list[npt.NDArray[np.float32]]


def open_cache(
    folder: Place,
    config: RunConfig,
    data: ImageData,
    teacher: Teacher | None,
    batches: TrainingBatches,
    *,
    is_shared: bool,
    ranks: Ranks = ALONE,
) -> TeacherCache | None:
    """Return the cache of a trial, or None if it would save no time, is not possible, or is switched off.

    Args:
        folder: The run folder; there is no cache in a folder at a URL.
        config: The trial.
        data: Images.
        teacher: The teacher, or None.
        batches: Training batches of the trial.
        is_shared: Whether other trials of the run have the same seed.
        ranks: The processes that share the trial; each keeps its own part.
    """
    settings, distill = config.distill.teacher, config.distill
    in_one_way = config.train.precision == "float32" and not config.train.cuda_graphs
    if teacher is None or settings.cache == "never" or not isinstance(folder, Path) or not in_one_way:
        return None
    if settings.cache == "auto" and batches.device.type != "cpu":
        return None
    is_plain = data.augmentation == Augmentation()
    if not is_plain and not is_shared and settings.cache == "auto":
        return None
    wanted = "logits" * distill.uses_logits, "taps" * distill.uses_features
    identity = json.dumps(
        [
            *wanted,
            *(_digest_of(teacher), data.name, data.mean, data.std, data.train.labels.tobytes().hex()),
            *(batches.batch_size, ranks.size, batches.device.type, settings.precision, torch.get_num_threads()),
            *([] if is_plain else [config.seed, ranks.rank, repr(data.augmentation)]),
        ]
    )
    name = hashlib.sha256(identity.encode()).hexdigest()[:32]
    return TeacherCache(
        # On shared storage each node has its own cache, because nodes cannot share mapped memory.
        folder / _FOLDER / re.sub(r"[^A-Za-z0-9_-]", "_", platform.node() or "node") / name,
        lambda images: _parts(teacher.predict(images, settings.precision == "auto"), *map(bool, wanted)),
        data,
        batches,
        by_image=is_plain,
        batch_size=-(-batches.batch_size // ranks.size),
        num_rows=len(data.train) if is_plain else config.train.epochs * batches.steps_per_epoch * batches.batch_size,
        max_bytes=int(settings.cache_gib * 2**30),
    )


def clear_cache(folder: Place) -> None:
    """Delete the caches in a run folder; after a crash of the machine they may be incomplete."""
    if isinstance(folder, Path) and not (folder / _FOLDER).is_symlink():
        shutil.rmtree(folder / _FOLDER, ignore_errors=True)


@final
class TeacherCache:
    """Outputs of a teacher for the steps of a trial; see :func:`open_cache`.

    Args:
        path: Path of its files, without suffix.
        says: The teacher: maps images to logits and taps; an output that is None is not cached.
        data: Images.
        batches: Training batches of the trial.
        by_image: Whether outputs depend on the image alone, and not on the step.
        batch_size: Batch size of the pass over all training images.
        num_rows: Number of training images; without ``by_image``, the number of images in all steps.
        max_bytes: Largest size of the file; if it would be larger, nothing is cached.
    """

    def __init__(
        self,
        path: Path,
        says: Callable[[Tensor], list[Tensor | None]],
        data: ImageData,
        batches: TrainingBatches,
        *,
        by_image: bool,
        batch_size: int,
        num_rows: int,
        max_bytes: int,
    ) -> None:
        self._path, self._says, self._data, self._batches = path, says, data, batches
        self._by_image, self._batch_size = by_image, batch_size
        self._num_rows, self._max_bytes = num_rows, max_bytes
        self._shapes: list[torch.Size | None] | None = None  # for one image; None: not cached
        self._maps: Rows | None = None
        self._descriptor: int | None = None
        self._closing: Callable[[], object] | None = None  # also called when the cache is garbage collected
        self.is_open = True
        self.num_computed = 0

    def target(self, step: int, images: Tensor) -> NetworkOutput | None:
        """Return the teacher's outputs for a step; None if they cannot be cached.

        Args:
            step: Step of the trial.
            images: Images of the step, for computing outputs that are not cached yet.
        """
        if not self.is_open:
            return None
        try:
            if self._shapes is None:
                self._begin(images)
            if not self.is_open:
                return None
            if not self._by_image:
                return self._of_step(step, images)
            maps = self._maps if self._maps is not None else self._of_all_images()
            chosen = self._batches.indices(step).cpu().numpy()
            return self._output([rows[chosen] for rows in maps])
        except OSError:  # for example a full disk or a quota; the search continues without the cache
            self.close()
            return None

    def close(self) -> None:
        """Close the files; they stay on disk for other trials until :func:`clear_cache`."""
        self.is_open, self._maps = False, None
        if self._closing is not None:
            self._closing()

    def _begin(self, images: Tensor) -> None:
        parts = self._says(images[:1])
        self._shapes = [None if part is None else _stored(part).shape[1:] for part in parts]
        if self._num_rows * _BYTES * sum(self._sizes()) > self._max_bytes:
            self.is_open = False
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def _sizes(self) -> list[int]:
        return [shape.numel() for shape in self._shapes or () if shape is not None]

    def _of_all_images(self) -> Rows:
        """Return memory-mapped rows of all images; the first trial of a node computes them while the others wait."""
        file = self._path.with_suffix(".all")
        with _alone(self._path.with_suffix(".lock")):
            if not file.exists():
                half = self._path.with_suffix(".half")
                _reserve(half, self._num_rows * _BYTES * sum(self._sizes()))
                maps = self._mapped(half, "r+")
                for start, rows in self._pass(self._batch_size):
                    for mapped, values in zip(maps, rows, strict=True):
                        mapped[start : start + len(values)] = values[: self._num_rows - start]
                del maps
                half.replace(file)
        self._maps = self._mapped(file, "r")
        return self._maps

    def _pass(self, batch_size: int) -> Iterator[tuple[int, Rows]]:
        """Yield rows of all training images in their order; all batches have the size of a step, also the last one."""
        order = np.arange(-(-self._num_rows // batch_size) * batch_size) % self._num_rows
        split = self._data.train.select(order)
        batches = evaluation_batches(split, self._data, batch_size, self._batches.device, MEMORY_FORMAT)
        for index, (images, _) in enumerate(batches):
            yield index * batch_size, self._rows(images)

    def _mapped(self, file: Path, mode: Any) -> Rows:
        maps, offset = [], 0
        for size in self._sizes():
            maps.append(np.memmap(file, np.float32, mode, offset, (self._num_rows, size)))
            offset += self._num_rows * size * _BYTES
        return list(maps)

    def _of_step(self, step: int, images: Tensor) -> NetworkOutput:
        """Return the block of a step from the file, or compute and write it; the first byte marks a complete block."""
        if self._descriptor is None:
            self._descriptor = os.open(self._path.with_suffix(".steps"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._closing = weakref.finalize(self, os.close, self._descriptor)
        sizes = self._sizes()
        length = len(images) * sum(sizes) * _BYTES
        begin = step * (length + 1)
        if os.pread(self._descriptor, 1, begin) == b"\1":
            block = np.frombuffer(os.pread(self._descriptor, length, begin + 1), np.float32)
            ends = np.cumsum([len(images) * size for size in sizes])[:-1]
            return self._output(
                [
                    part.reshape(len(images), size).copy()
                    for part, size in zip(np.split(block, ends), sizes, strict=True)
                ]
            )
        rows = self._rows(images)
        content = b"".join(part.tobytes() for part in rows)
        if os.pwrite(self._descriptor, content, begin + 1) == length:
            os.pwrite(self._descriptor, b"\1", begin)  # a separate write, after the block: a marked block is complete
        return self._output(rows)

    def _rows(self, images: Tensor) -> Rows:
        self.num_computed += len(images)
        parts = self._says(images)
        return [_stored(part).float().cpu().flatten(1).numpy() for part in parts if part is not None]

    def _output(self, rows: Rows) -> NetworkOutput:
        assert self._shapes is not None
        left = iter(rows)
        parts: list[Tensor | None] = []
        for shape in self._shapes:
            if shape is None:
                parts.append(None)
                continue
            values = torch.from_numpy(next(left)).to(self._batches.device).unflatten(1, shape)
            parts.append(values.permute(0, 3, 1, 2) if len(shape) == 3 else values)
        logits = parts[0]
        return NetworkOutput(torch.empty(0) if logits is None else logits, tuple(parts[1:]))


def _parts(output: NetworkOutput, logits: bool, taps: bool) -> list[Tensor | None]:
    return [output.logits if logits else None, *(tap if taps else None for tap in output.taps)]


def _stored(part: Tensor) -> Tensor:
    """Return features with channels last, which is their memory order, and logits unchanged."""
    return part.permute(0, 2, 3, 1).contiguous() if part.dim() == 4 else part


def _digest_of(teacher: Teacher) -> str:
    digest = hashlib.sha256()
    for name, tensor in teacher.network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _reserve(file: Path, size: int) -> None:
    """Make a file of zeros with allocated disk space: on a full disk, writing to a mapped hole kills the process."""
    with file.open("wb") as stream:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(stream.fileno(), 0, size)
            return
        for _ in range(-(-size // 2**20)):
            stream.write(bytes(2**20))


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock against other processes of this node; it is released if the process dies."""
    with lock.open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield

"""Streaming of images from disk: worker processes decode batches ahead of the step that needs them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.context import BaseContext
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dnad_ray.data.decoding import FULL_LEVEL, READERS
from dnad_ray.data.image_files import BrokenImagesError, Marks, count_levels_of_files, decode_images
from dnad_ray.data.images import Indices, Progress, Statistics, statistics_of_levels
from dnad_ray.errors import DataError, ResourceError, one_line

__all__ = ["FileSplit", "automatic_workers"]

_MOST_AUTOMATIC_WORKERS = 8
_BATCHES_AHEAD = 2  # of each worker


@dataclass(frozen=True, kw_only=True, eq=False)
class FileSplit:
    """Images on disk with their classes. The object holds paths only, so that it can be sent to every trial.

    Attributes:
        paths: The files, absolute, because a trial may run in another folder; text, which is smaller than paths are.
        labels: Class indices, shape (N,).
        image_size: Side to which the images are brought, in pixels.
        channels: 1 for grey, 3 for RGB.
        workers: Processes that decode ahead; None takes :func:`automatic_workers`, 0 decodes when asked.
        full_level: Level of white of images of more than 8 bits.
    """

    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    image_size: int
    channels: int
    workers: int | None = None
    full_level: int = FULL_LEVEL

    def __post_init__(self) -> None:
        assert self.labels.dtype == np.int64, self.labels.dtype
        assert self.labels.shape == (len(self.paths),), (self.labels.shape, len(self.paths))

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Indices) -> FileSplit:
        """Return the files at some positions, in that order."""
        return replace(self, paths=tuple(self.paths[index] for index in indices), labels=self.labels[indices])

    def held(self) -> None:
        """Return None: nothing is held in memory."""

    def statistics(self, message: str, progress: Progress, marks: Marks | None = None) -> Statistics:
        """Decode every file once and return what ``channel_statistics`` of the images would, bit for bit.

        Args:
            message: Text for the progress bar.
            progress: Called with the number of images read.
            marks: Digests to fill, one for each file.

        Raises:
            BrokenImagesError: If files are no intact images.
        """
        counts = count_levels_of_files(
            self.paths, self.image_size, self.channels, message, progress, full_level=self.full_level, marks=marks
        )
        return statistics_of_levels(counts)

    def stream(self, parts: Iterable[Indices], device: torch.device) -> Generator[Tensor, None, None]:
        """Yield the bytes of one part after the other, shape (B, C, H, W), on a device.

        Workers start with the first part and end with the last one, or when the generator is closed or dropped.

        Args:
            parts: Positions of the images of each batch; may be endless, and is read ahead.
            device: Device of the bytes.

        Raises:
            DataError: If a file is missing or no intact image.
            ResourceError: If a worker ended by itself.
        """
        wanted = ([self.paths[index] for index in part] for part in parts)
        workers = automatic_workers() if self.workers is None else self.workers
        # Not run on a GPU: from pinned memory the copy need not be waited for.
        batches = _decoded_ahead(
            _Decoder(self.image_size, self.channels, self.full_level), wanted, workers, device.type == "cuda"
        )
        for images in batches:
            yield images.to(device, non_blocking=True)


def automatic_workers() -> int:
    """Return how many processes may decode beside this one: its threads but one, at least 1 and at most 8.

    Torch's number of threads is what a trial was given of the machine's CPUs.
    """
    return min(max(1, torch.get_num_threads() - 1), _MOST_AUTOMATIC_WORKERS)


@final
class _Decoder(Dataset[Tensor | DataError]):
    """Decodes the files it is given. It holds no paths, so that a worker starts fast for any number of images."""

    def __init__(self, image_size: int, channels: int, full_level: int) -> None:
        self._image_size, self._channels, self._full_level = image_size, channels, full_level

    def __getitem__(self, paths: Sequence[str]) -> Tensor | DataError:
        try:
            # In a worker, torch was told to use one thread; in the trial's own process, the trial's.
            threads, level = torch.get_num_threads(), self._full_level
            images = decode_images(paths, self._image_size, self._channels, threads=threads, full_level=level)
        except BrokenImagesError as error:
            # Returned, because raised in a worker it would come out with a traceback in its message. The first one
            # says enough here, where a disk may have gone.
            return BrokenImagesError(error.broken[:1])
        return torch.from_numpy(images)


def _decoded_ahead(
    decoder: _Decoder, wanted: Iterable[Sequence[str]], workers: int, pin_memory: bool
) -> Generator[Tensor, None, None]:
    with warnings.catch_warnings():
        # The configured number, or at most the CPUs of the trial.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader = DataLoader(
            decoder,
            batch_size=None,
            sampler=wanted,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # or a seed for the workers would be taken out of the global stream
            multiprocessing_context=_context() if workers else None,
            prefetch_factor=_BATCHES_AHEAD if workers else None,
            worker_init_fn=_follow_parent,
        )
    batches: Iterator[Tensor | DataError] | None = None
    while True:
        problem = ""
        try:
            if batches is None:
                with _without_main():
                    batches = iter(loader)
            images = next(batches, None)
        except (RuntimeError, OSError, EOFError) as error:  # what torch raises where a worker was killed
            problem = one_line(error)
        if not problem and isinstance(images, Tensor):
            yield images
            continue
        # What is raised from here, outside of "except", must not keep the loader and so the (other) workers alive.
        batches = None
        if problem:
            raise ResourceError("data.workers", workers, f"workers that stay alive, or 0 for none ({problem})")
        if images is not None:
            raise images
        return


def _context() -> BaseContext:
    """Return the start method of workers: forks of a small server process that has loaded only torch.

    This process may be a Ray actor, with threads that hold locks: its forks could block forever. Fresh
    interpreters ("spawn") would each load torch for seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *READERS])
    return context


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Keep new workers from importing this process's main program again, as multiprocessing would have them do.

    They do not need it. It may be Ray's main program, which is slow to import, or a script that would start a search.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _unchanged(images: Any) -> Any:
    return images


def _follow_parent(_: int) -> None:
    """End this worker when its parent ends, and ignore Ctrl-C, which a terminal sends to every process.

    Torch watches the process that forked the worker. That is the fork server, which lives as long as its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

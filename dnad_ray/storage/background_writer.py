"""Writing of files in a background thread, because a flush to disk can take longer than a training step."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType
from typing import final

from dnad_ray.storage.files import write_bytes
from dnad_ray.storage.places import Place

__all__ = ["BackgroundWriter"]


@final
class BackgroundWriter:
    """Writes files in a thread, in the order of the calls; a context manager.

    Each file is written by :func:`dnad_ray.storage.files.write_bytes` and is on the disk before the next one. After a
    failure nothing more is written until the error was raised to a caller, so that no earlier file is ever missing.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder, BackgroundWriter() as writer:
    ...     writer.write(pathlib.Path(folder, "file"), b"content")
    ...     writer.settle()
    ...     pathlib.Path(folder, "file").read_bytes()
    b'content'
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "writing")
        self._newest = self._thread.submit(lambda: None)
        self._error: BaseException | None = None

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()  # waits for the queued files
        if error is None:
            self.settle()

    def write(self, file: Place, content: bytes) -> None:
        """Queue a file to be written; returns at once."""
        self._newest = self._thread.submit(self._write, file, content)

    def settle(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            ResourceError: If there is no space left for a file; likewise any other error in writing one.
        """
        wait([self._newest])
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, file: Place, content: bytes) -> None:
        if self._error is None:
            try:
                write_bytes(file, content)
            except BaseException as error:  # noqa: BLE001 - `settle` raises it
                self._error = error

"""A thread that makes the teacher of a sweep while Ray starts the workers.

A worker needs seconds to load torch, and a small teacher needs seconds to train, so they run at the same time. During
the training of a large teacher the workers occupy CPUs or GPUs, but no other part of the sweep could use these.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import final

from dnad_ray.distill.teacher import TeacherFile
from dnad_ray.runtime.stopping import StopCheck, Stopped, StopRequest

__all__ = ["TeacherThread"]


@final
class TeacherThread:
    """Makes the teacher before the trials of a sweep begin, and gives it to them; a context manager.

    Args:
        make: Makes the teacher; returns None for searches without one. It calls its argument regularly, and raises
            :class:`~dnad_ray.runtime.stopping.Stopped` if that returns a request.
        begin: Gives the teacher to the trials.
        stop: Called regularly. If it returns a request, the training of the teacher ends; a resumed command
            continues it.
    """

    def __init__(
        self,
        make: Callable[[StopCheck], TeacherFile | None],
        begin: Callable[[TeacherFile | None], None],
        stop: StopCheck | None = None,
    ) -> None:
        self._make, self._begin, self._stop = make, begin, stop
        self._error: Exception | None = None
        self._honoured: StopRequest | None = None
        self._is_unwanted = False
        self._thread = threading.Thread(target=self._run, name="teacher", daemon=True)

    def __enter__(self) -> TeacherThread:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_unwanted = kind is not None
        self._thread.join()

    def request(self) -> StopRequest | None:
        """Return a request to stop if there will be no teacher, else None; a ``StopCheck`` for the trials."""
        if self._error is None and self._honoured is None:
            return None
        return self._honoured or StopRequest("there is no teacher")

    def finish(self) -> None:
        """Wait until the teacher is made.

        Raises:
            Exception: The error of ``make`` or ``begin``.
            Stopped: If the training was stopped by a signal. The end of a time budget raises nothing.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        if self._honoured is not None and self._honoured.state != "paused":
            raise Stopped(self._honoured)

    def _run(self) -> None:
        try:
            self._begin(self._make(self._check))
        except Stopped as stopped:
            self._honoured = stopped.request
        except Exception as error:  # noqa: BLE001 - `finish` raises it
            self._error = error

    def _check(self) -> StopRequest | None:
        if self._is_unwanted:
            return StopRequest("the sweep has failed")
        return None if self._stop is None else self._stop()

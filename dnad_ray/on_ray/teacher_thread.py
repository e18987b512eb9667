"""The teacher of a sweep is made in a thread, while Ray starts the workers that will ask for it.

A worker takes seconds until it has loaded torch, and waits for it most of that time; a small teacher takes seconds to
train. Workers hold their CPUs or GPUs while they wait for a large one, but nobody else of the sweep could use them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import final

from dnad_ray.distill.teacher import TeacherFile
from dnad_ray.runtime.stopping import StopCheck, StopRequest

__all__ = ["TeacherThread"]


class _Abandoned(BaseException):
    """Nobody waits for it any more; no ``except Exception`` on the way may take it for a failure."""


@final
class TeacherThread:
    """Makes the teacher before the trials of a sweep begin, and gives it to them; a context manager.

    Args:
        make: Makes the teacher, None where nobody is imitated. It calls what it is given every now and then, and lets
            through what that raises.
        begin: Gives it to the trials.
        stop: Asked every now and then; the teacher is then given up.
    """

    def __init__(
        self,
        make: Callable[[Callable[[], None]], TeacherFile | None],
        begin: Callable[[TeacherFile | None], None],
        stop: StopCheck | None = None,
    ) -> None:
        self._make, self._begin, self._stop = make, begin, stop
        self._error: Exception | None = None
        self._is_given_up = self._is_unwanted = False
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
        """Ask the trials to stop once it is clear that there will be no teacher; a ``StopCheck``."""
        return None if self._error is None else StopRequest("there is no teacher")

    def finish(self) -> None:
        """Wait until it is done.

        Raises:
            Exception: What kept it from that.
            KeyboardInterrupt: If it was given up because somebody asked to stop.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        if self._is_given_up:
            raise KeyboardInterrupt

    def _run(self) -> None:
        try:
            self._begin(self._make(self._check))
        except _Abandoned:
            self._is_given_up = True
        except Exception as error:  # noqa: BLE001 - it is raised where somebody waits for it
            self._error = error

    def _check(self) -> None:
        if self._is_unwanted or (self._stop is not None and self._stop() is not None):
            raise _Abandoned

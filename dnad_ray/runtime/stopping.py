"""Stop requests, which a search checks between two steps, and the signals that make one.

A search calls its stop check at the end of each step, when its state is complete, so that the checkpoint taken then
continues bit for bit. Signals, a time budget and a cluster each provide such a check.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, final

__all__ = ["Interrupted", "StopCheck", "StopRequest", "StopSignals", "Stopped", "first_of"]

_SAME_PRESS_SECONDS = 0.5
_NOTICE = b"dnad-ray: stopping at the end of the step; Ctrl-C once more ends at once\n"


@dataclass(frozen=True)
class StopRequest:
    """Asks a search to end after the step it is in.

    Attributes:
        reason: The reason, as text for the status of the trial.
        state: The state of the trial after it, a value of :class:`dnad_ray.run_folder.states.TrialState`.
    """

    reason: str
    state: str = "interrupted"


StopCheck = Callable[[], StopRequest | None]
"""Asked at the end of a step, so it must take next to no time; None means: go on."""


def first_of(*checks: StopCheck | None) -> StopCheck:
    """Return a check that passes on the first request of several; entries that are None are skipped."""
    asked = [check for check in checks if check is not None]
    return lambda: next((request for check in asked if (request := check()) is not None), None)


class Stopped(KeyboardInterrupt):
    """A training has honoured a request to stop; the same command goes on from its checkpoint.

    Like Ctrl-C it passes every ``except Exception`` on the way: it is no failure.

    Args:
        request: The request.
    """

    def __init__(self, request: StopRequest) -> None:
        super().__init__(request.reason)
        self.request = request


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM at a point where the command can end at once.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@final
class StopSignals:
    """Ctrl-C and SIGTERM while a command runs; a :data:`StopCheck` and a context manager.

    They end the command at once, as :class:`Interrupted`; after :meth:`defer` the first one is a request, and only the
    second one ends at once.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._since = 0.0
        self._is_deferring = False
        self._previous: dict[int, Any] = {}

    def __call__(self) -> StopRequest | None:
        """Return a request once a signal has come."""
        return None if self.signum is None else StopRequest(f"interrupted by {signal.Signals(self.signum).name}")

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # only there may Python handle signals
            self._previous = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
            self._install()
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _install(self) -> None:
        for signum in self._previous:
            signal.signal(signum, self._note)

    def defer(self) -> None:
        """From now on, the first signal stops the command only at the end of a step."""
        self._install()  # a library may have taken the signals meanwhile
        self._is_deferring = True

    def _note(self, signum: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self.signum is None:
            self.signum, self._since = signum, now
            if self._is_deferring:
                with contextlib.suppress(OSError):  # the terminal may be closed
                    os.write(2, _NOTICE)  # a stream may be in the middle of a write of its own
                return
        elif self._is_deferring and now - self._since < _SAME_PRESS_SECONDS:
            return  # a terminal, a batch system and a parent may all pass on the same one
        raise Interrupted(signum)

"""A request to stop on its way from the driver of a sweep to its trials, on whatever node (may import ray)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, final

import ray
from ray import tune
from ray.exceptions import RayError

from dnad_ray.stopping import StopCheck, StopRequest

__all__ = ["RemoteStop", "SweepStop", "stop_board"]


class _Board:
    """Answers all who wait once somebody asks to stop."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._request: StopRequest | None = None

    async def ask(self, request: StopRequest) -> None:
        self._request = self._request or request
        self._asked.set()

    async def wait(self) -> StopRequest | None:
        await self._asked.wait()
        return self._request


def stop_board() -> Any:
    """Start the actor that passes a request on; it lives on this node, and as long as its handle does."""
    here = ray.get_runtime_context().get_node_id()
    return ray.remote(num_cpus=0)(_Board).options(label_selector={"ray.io/node-id": here}).remote()


@final
class RemoteStop:
    """The trial's end: a :data:`dnad_ray.stopping.StopCheck` that looks into memory, not into the network.

    Args:
        board: What :func:`stop_board` returned.
    """

    def __init__(self, board: Any) -> None:
        self._answer = board.wait.remote()

    def __call__(self) -> StopRequest | None:
        """Return the request once there is one."""
        if self._answer is None or not ray.wait([self._answer], timeout=0)[0]:
            return None
        try:
            request: StopRequest | None = ray.get(self._answer)
        except RayError:  # the board is gone; that is no reason to stop
            self._answer = request = None
        return request


@final
class SweepStop(tune.Stopper, tune.Callback):
    """The driver's end: passes a request on, waits for the trials that run, and ends the experiment.

    Args:
        check: Says when to stop.
        board: What :func:`stop_board` returned.
    """

    def __init__(self, check: StopCheck, board: Any) -> None:
        self._check, self.board = check, board
        self._running: set[str] = set()
        self._awaited: set[str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it to restore an experiment; we never restore one

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never stop a single trial: it ends by itself once its checkpoint is written."""
        return False

    def stop_all(self) -> bool:
        """Whether somebody asked to stop, and all trials that ran then have ended."""
        if self._awaited is None and (request := self._check()) is not None:
            # Those that Tune starts from now on end before their first step: nothing of them can be lost.
            self._awaited = set(self._running)
            with contextlib.suppress(RayError):
                self.board.ask.remote(request)
        return self._awaited is not None and not self._awaited

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial runs."""
        self._running.add(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial has ended."""
        self._ended(trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial failed; should it start again, there is nothing in it to wait for."""
        self._ended(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial failed for good."""
        self._ended(trial)

    def _ended(self, trial: Any) -> None:
        self._running.discard(trial.trial_id)
        if self._awaited is not None:
            self._awaited.discard(trial.trial_id)

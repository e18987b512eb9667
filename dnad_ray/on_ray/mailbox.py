"""What the driver of a sweep has for its trials, on whatever node: a teacher, a request to stop (may import ray)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, final

import ray
from ray import tune
from ray.exceptions import RayError

from dnad_ray.runtime.stopping import StopCheck, StopRequest

__all__ = ["RemoteStop", "SweepStop", "hand_over", "references_from", "stop_board", "taken_from"]


_MOST_WAITING = 100_000
"""Calls that a board answers later, two for each trial that runs; by itself Ray lets an actor have 1,000."""


class _Board:
    """Answers all who wait once somebody asks to stop, or gives what they wait for."""

    def __init__(self) -> None:
        self._asked, self._given = asyncio.Event(), asyncio.Event()
        self._request: StopRequest | None = None
        self._gift: list[Any] | None = None

    async def ask(self, request: StopRequest) -> None:
        self._request = self._request or request
        self._asked.set()
        self._given.set()

    async def give(self, gift: list[Any]) -> None:
        self._gift = gift
        self._given.set()

    async def take(self) -> list[Any] | None:
        await self._given.wait()
        return self._gift

    async def wait(self) -> StopRequest | None:
        await self._asked.wait()
        return self._request


def stop_board() -> Any:
    """Start the actor that passes a request on; it lives on this node, and as long as its handle does."""
    here = ray.get_runtime_context().get_node_id()
    options = {"label_selector": {"ray.io/node-id": here}, "max_concurrency": _MOST_WAITING}
    return ray.remote(num_cpus=0)(_Board).options(**options).remote()


def hand_over(board: Any, gift: Any) -> None:
    """Give all trials, those that wait and those that come, the same; it is put into the object store once."""
    ray.get(board.give.remote([ray.put(gift)]))  # in a list, or Ray would hand over what it stands for


def taken_from(board: Any) -> list[Any]:
    """Wait for what the driver has for a trial; returns that in a list, or an empty one if it asks to stop instead."""
    return list(ray.get(references_from(board)))


def references_from(board: Any) -> list[ray.ObjectRef[Any]]:
    """Wait as :func:`taken_from` does; what it is stays in the object store."""
    return ray.get(board.take.remote()) or []


@final
class RemoteStop:
    """The trial's end: a :data:`dnad_ray.runtime.stopping.StopCheck` that looks into memory, not into the network.

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

"""The mailbox of a sweep: an actor through which the driver gives its trials the teacher and a request to stop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, final

import ray
from ray import tune
from ray.exceptions import RayError

from dnad_ray.runtime.stopping import StopCheck, StopRequest

__all__ = ["Mailbox", "RemoteStop", "SweepStop", "start_mailbox"]


_MOST_WAITING = 100_000
"""Most calls that wait for an answer at once, two for each trial that runs; Ray's default is 1,000."""


class Mailbox:
    """The actor: answers all that wait once somebody asks to stop, or gives them the teacher."""

    def __init__(self) -> None:
        self._asked, self._answered = asyncio.Event(), asyncio.Event()
        self._request: StopRequest | None = None
        self._teacher: list[ray.ObjectRef[Any]] = []

    async def give_teacher(self, teacher: list[ray.ObjectRef[Any]]) -> None:
        """Give all trials, those that wait and those that come, the same teacher.

        Args:
            teacher: The reference of the teacher file, or of None, in a list: Ray would fetch a bare reference.
        """
        self._teacher = teacher
        self._answered.set()

    async def teacher(self) -> list[ray.ObjectRef[Any]]:
        """Wait for the teacher and return its reference in a list; an empty one if somebody asks to stop instead."""
        await self._answered.wait()
        return self._teacher

    async def ask_to_stop(self, request: StopRequest) -> None:
        """Ask all trials to stop; the first request counts."""
        self._request = self._request or request
        self._asked.set()
        self._answered.set()

    async def stop_request(self) -> StopRequest | None:
        """Wait for a request to stop and return it."""
        await self._asked.wait()
        return self._request


def start_mailbox() -> Any:
    """Start the actor on this node; it lives as long as its handle does."""
    here = ray.get_runtime_context().get_node_id()
    options = {"label_selector": {"ray.io/node-id": here}, "max_concurrency": _MOST_WAITING}
    return ray.remote(num_cpus=0)(Mailbox).options(**options).remote()


@final
class RemoteStop:
    """The trial's side: a :data:`dnad_ray.runtime.stopping.StopCheck` that does not wait for the network.

    Args:
        mailbox: What :func:`start_mailbox` returned.
    """

    def __init__(self, mailbox: Any) -> None:
        self._answer = mailbox.stop_request.remote()

    def __call__(self) -> StopRequest | None:
        """Return the request once there is one."""
        if self._answer is None or not ray.wait([self._answer], timeout=0)[0]:
            return None
        try:
            request: StopRequest | None = ray.get(self._answer)
        except RayError:  # the mailbox is gone; that is no reason to stop
            self._answer = request = None
        return request


@final
class SweepStop(tune.Stopper, tune.Callback):
    """The driver's side: passes a request on, waits for the trials that run, and ends the experiment.

    Args:
        check: Says when to stop.
        mailbox: What :func:`start_mailbox` returned.
    """

    def __init__(self, check: StopCheck, mailbox: Any) -> None:
        self._check, self._mailbox = check, mailbox
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
                self._mailbox.ask_to_stop.remote(request)
        return self._awaited is not None and not self._awaited

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial runs."""
        self._running.add(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial has ended."""
        self._ended(trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial failed; if it starts again, the sweep does not wait for it."""
        self._ended(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial failed for good."""
        self._ended(trial)

    def _ended(self, trial: Any) -> None:
        self._running.discard(trial.trial_id)
        if self._awaited is not None:
            self._awaited.discard(trial.trial_id)

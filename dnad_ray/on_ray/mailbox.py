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
"""Most calls that may wait at the same time, two for each running trial; Ray's default is 1,000."""


class Mailbox:
    """The actor. Its calls wait until there is a teacher, or a request to stop."""

    def __init__(self) -> None:
        self._asked, self._answered = asyncio.Event(), asyncio.Event()
        self._request: StopRequest | None = None
        self._teacher: list[ray.ObjectRef[Any]] = []

    async def give_teacher(self, teacher: list[ray.ObjectRef[Any]]) -> None:
        """Give the teacher to all trials, those that wait for it and later ones.

        Args:
            teacher: The reference of the teacher file, or of None, in a list: Ray would fetch a bare reference.
        """
        self._teacher = teacher
        self._answered.set()

    async def teacher(self) -> list[ray.ObjectRef[Any]]:
        """Wait for the teacher and return its reference in a list; the list is empty after a request to stop."""
        await self._answered.wait()
        return self._teacher

    async def ask_to_stop(self, request: StopRequest) -> None:
        """Ask all trials to stop; only the first request counts."""
        self._request = self._request or request
        self._asked.set()
        self._answered.set()

    async def stop_request(self) -> StopRequest | None:
        """Wait for a request to stop and return it."""
        await self._asked.wait()
        return self._request


def start_mailbox() -> Any:
    """Start the actor on this node; it ends when its handle is deleted."""
    here = ray.get_runtime_context().get_node_id()
    options = {"label_selector": {"ray.io/node-id": here}, "max_concurrency": _MOST_WAITING}
    return ray.remote(num_cpus=0)(Mailbox).options(**options).remote()


@final
class RemoteStop:
    """The stop check of a trial, which does not wait for the network.

    It is a :data:`dnad_ray.runtime.stopping.StopCheck`.

    Args:
        mailbox: What :func:`start_mailbox` returned.
    """

    def __init__(self, mailbox: Any) -> None:
        self._answer = mailbox.stop_request.remote()

    def __call__(self) -> StopRequest | None:
        """Return the request, or None while there is none."""
        if self._answer is None or not ray.wait([self._answer], timeout=0)[0]:
            return None
        try:
            request: StopRequest | None = ray.get(self._answer)
        except RayError:  # the mailbox is gone; that is no reason to stop
            self._answer = request = None
        return request


@final
class SweepStop(tune.Stopper, tune.Callback):
    """The stop check of the driver: passes a request to the trials, waits for them, and ends the experiment.

    Args:
        check: Returns a request when the sweep has to stop.
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
        """Whether there was a request to stop, and all trials that ran at that time have ended."""
        if self._awaited is None and (request := self._check()) is not None:
            # Trials that Tune starts from now on end before their first step, so there is nothing to lose.
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

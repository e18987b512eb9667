"""The mailbox of a sweep: an actor through which the driver gives its trials the teacher and a request to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, final

import ray
from ray import tune
from ray.exceptions import RayError

from dnad_ray.runtime.stopping import StopCheck, StopRequest
from dnad_ray.training.loop import StepProgress

__all__ = ["Mailbox", "RemoteStop", "StepNews", "SweepStop", "has_failed", "start_mailbox", "step_sender"]


_MOST_WAITING = 100_000
"""Most calls that may wait at the same time, two for each running trial; Ray's default is 1,000."""

_STEP_SECONDS = 2.0
"""Least time between two notes of a trial about its steps, and between two looks at them."""


class Mailbox:
    """The actor. Its calls wait until there is a teacher, or a request to stop."""

    def __init__(self) -> None:
        self._asked, self._answered = asyncio.Event(), asyncio.Event()
        self._request: StopRequest | None = None
        self._teacher: list[ray.ObjectRef[Any]] = []
        self._steps: dict[str, tuple[int, int]] = {}

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

    async def note_steps(self, name: str, step: int, num_steps: int) -> None:
        """Note how many of its steps a trial or job has taken."""
        self._steps[name] = (step, num_steps)

    async def steps(self) -> dict[str, tuple[int, int]]:
        """Return the newest of these notes by name, and forget them."""
        newest, self._steps = self._steps, {}
        return newest


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


def step_sender(mailbox: Any, name: str) -> StepProgress | None:
    """Return what a trial or job calls with (steps done, most steps); it never waits, and nothing depends on it."""
    if mailbox is None:
        return None
    last = time.monotonic()

    def send(step: int, num_steps: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _STEP_SECONDS:
            last = time.monotonic()
            mailbox.note_steps.remote(name, step, num_steps)

    return send


@final
class StepNews:
    """Fetches the notes of trials about their steps for the driver, without waiting.

    Args:
        mailbox: What :func:`start_mailbox` returned.
    """

    def __init__(self, mailbox: Any) -> None:
        self._mailbox, self._last = mailbox, time.monotonic()
        self._answer: Any = None

    def __call__(self) -> dict[str, tuple[int, int]]:
        """Return (steps done, most steps) by name, where there is news."""
        if self._answer is None:
            if time.monotonic() - self._last >= _STEP_SECONDS:
                self._last, self._answer = time.monotonic(), self._mailbox.steps.remote()
            return {}
        if not ray.wait([self._answer], timeout=0)[0]:
            return {}
        answer, self._answer = self._answer, None
        try:
            news: dict[str, tuple[int, int]] = ray.get(answer)
        except RayError:  # the mailbox is gone
            return {}
        return news


@final
class SweepStop(tune.Stopper, tune.Callback):
    """The stop check of the driver: passes a request to the trials, waits for them, and ends the experiment.

    Args:
        check: Returns a request when the sweep has to stop.
        mailbox: What :func:`start_mailbox` returned.
        has_begun: Whether a trial has taken up its search. Before that it has nothing to save, and the start of its
            worker can take minutes on a busy machine, so nobody waits for it.
    """

    def __init__(self, check: StopCheck, mailbox: Any, has_begun: Callable[[str], bool]) -> None:
        self._check, self._mailbox, self._has_begun = check, mailbox, has_begun
        self._running: dict[str, str] = {}  # names of trials by Tune's ids
        self._awaited: set[str] | None = None
        self._asking: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it to restore an experiment; we never restore one

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never stop a single trial: it ends by itself once its checkpoint is written."""
        return False

    def stop_all(self) -> bool:
        """Whether there was a request to stop, and all trials that searched at that time have ended."""
        if self._awaited is None and (request := self._check()) is not None:
            # Trials that Tune starts from now on end before their first step, so there is nothing to lose.
            self._awaited = {trial_id for trial_id, name in self._running.items() if self._has_begun(name)}
            self._asking = self._mailbox.ask_to_stop.remote(request)
        if self._awaited and has_failed(self._asking):
            self._awaited.clear()  # without a mailbox no trial hears of it; each goes on from its last checkpoint
        return self._awaited is not None and not self._awaited

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial runs."""
        self._running[trial.trial_id] = trial.config["trial"]

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
        self._running.pop(trial.trial_id, None)
        if self._awaited is not None:
            self._awaited.discard(trial.trial_id)


def has_failed(call: Any) -> bool:
    """Whether a call of an actor ended with an error; False while it is on its way."""
    if not ray.wait([call], timeout=0)[0]:
        return False
    try:
        ray.get(call)
    except RayError:
        return True
    return False

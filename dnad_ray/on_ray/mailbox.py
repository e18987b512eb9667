"""The mailbox of a sweep: an actor through which the driver gives its trials the teacher and a request to stop.

The actor's process imports this module and nothing else of ours, so it loads neither torch nor Tune: it is there
seconds earlier, and takes a quarter of the memory.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, final

import ray
from ray.exceptions import RayError

from dnad_ray.runtime.stopping import StopRequest

if TYPE_CHECKING:
    from dnad_ray.training.loop import StepProgress

__all__ = ["Mailbox", "RemoteStop", "StepNews", "has_failed", "start_mailbox", "step_sender"]


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


def has_failed(call: Any) -> bool:
    """Whether a call of an actor ended with an error; False while it is on its way."""
    if not ray.wait([call], timeout=0)[0]:
        return False
    try:
        ray.get(call)
    except RayError:
        return True
    return False

"""A callback of Tune that passes the reports of trials to the board (may import ray)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Any, final

from ray import tune

from dnad_ray.on_ray.reports import records_in
from dnad_ray.run_folder.reading import read_status
from dnad_ray.run_folder.states import TrialState
from dnad_ray.storage.places import Place
from dnad_ray.watch.board import Board

__all__ = ["BoardCallback"]


@final
class BoardCallback(tune.Callback):
    """Passes the reports of trials to the board. An error in showing them must not end the experiment.

    Args:
        folder: The run folder, which has the status of each trial.
        board: The board.
        news: Returns (steps done, most steps) by trial, where there is news; None for no such news.
    """

    def __init__(
        self, folder: Place, board: Board, news: Callable[[], Mapping[str, tuple[int, int]]] | None = None
    ) -> None:
        self._folder, self._board, self._news = folder, board, news
        self._waiting: list[str] | None = []
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the teacher is there."""
        return self._waiting is None

    def open(self) -> None:
        """Show the trials that have started so far, and from now on each one when it starts; the teacher is there."""
        with self._lock:
            waiting, self._waiting = self._waiting or [], None
        for name in waiting:
            self._board.trial_began(name)

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks to restore an experiment; we never restore one, and a terminal cannot be pickled.
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Show the steps of trials within their epochs; Tune calls this about ten times a second."""
        if self._news is None:
            return
        with contextlib.suppress(Exception):
            for name, (step, num_steps) in self._news().items():
                self._board.step(name, step, num_steps)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show that a trial runs."""
        with contextlib.suppress(Exception):
            name = trial.config["trial"]
            with self._lock:
                if self._waiting is not None:
                    self._waiting.append(name)
                    return
            self._board.trial_began(name)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Show what a trial reported."""
        with contextlib.suppress(Exception):
            for record in records_in(result):
                self._board.report(trial.config["trial"], record)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show how a trial ended."""
        with contextlib.suppress(Exception):
            name = trial.config["trial"]
            if self._waiting is not None:
                return  # it never began
            status = read_status(self._folder, name)
            # A trial that ended without a final status has failed, as in `conclude`.
            state = status["state"] if status["state"].is_over else TrialState.FAILED
            self._board.trial_ended(name, state, status.get("reason"))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that a worker failed."""
        with contextlib.suppress(Exception):
            self._board.say(f"{trial.config['trial']}: the worker failed; Ray tries again ({trial.path}/error.txt)")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that a trial failed for good."""
        with contextlib.suppress(Exception):
            name = trial.config["trial"]
            self._board.say(f"{name}: failed too often ({trial.path}/error.txt)")
            self._board.trial_ended(name, TrialState.FAILED, f"failed too often ({trial.path}/error.txt)")

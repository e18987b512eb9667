"""What a sweep shows while its trials report (may import ray)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, final

from ray import tune

from dnad_ray.progress import Board
from dnad_ray.trial import TrialSpec

__all__ = ["Watcher"]


@final
class Watcher(tune.Callback):
    """Shows what trials report; whatever goes wrong in showing must not end the experiment.

    Args:
        specs: The trials of the sweep.
        board: Where to show them.
    """

    def __init__(self, specs: Sequence[TrialSpec], board: Board) -> None:
        self._specs, self._board = {spec.name: spec for spec in specs}, board
        self._errors: dict[str, float] = {}
        self._ended: set[str] = set()

    def expect(self, spec: TrialSpec) -> None:
        """Take note of a trial that was chosen only now."""
        self._specs[spec.name] = spec

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks to restore an experiment; we never restore one, and a terminal cannot be pickled.
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Show what a trial reported."""
        with contextlib.suppress(Exception):
            spec = self._specs[trial.config["trial"]]
            if "error" in result:
                self._errors[spec.name] = result["error"]
            text = f"{spec.label}: {result['num_operations']} operations"
            if spec.name in self._errors:
                text += f", proxy error {self._errors[spec.name]:.2%}"
            total = spec.config.train.epochs
            self._board.update(spec.name, total if result["at_end"] else result["epoch"], total, text)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a trial that is at its end, and not one that paused."""
        with contextlib.suppress(Exception):
            if trial.last_result.get("stopped"):
                return
            self._ended.add(trial.config["trial"])
            self._board.update("sweep", len(self._ended), len(self._specs), "trials at their end")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that a worker failed."""
        with contextlib.suppress(Exception):
            self._board.say(f"{trial.config['trial']}: the worker failed; Ray tries again ({trial.path}/error.txt)")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that a trial failed for good."""
        with contextlib.suppress(Exception):
            self._board.say(f"{trial.config['trial']}: failed too often ({trial.path}/error.txt)")

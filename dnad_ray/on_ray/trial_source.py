"""The trials of a sweep, one after the other, until all are done or the time is over (may import ray)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

from ray.tune.search import Searcher

from dnad_ray.config.run import RunConfig
from dnad_ray.runtime.budget import Budget
from dnad_ray.storage.places import Place
from dnad_ray.trials.dominance import Trajectories
from dnad_ray.trials.plan import Sampler, choose
from dnad_ray.trials.spec import TrialSpec

__all__ = ["TrialSource"]


@final
class TrialSource(Searcher):
    """Gives Tune the open trials. Where the settings of a trial are open, the sampler chooses and they are stored.

    Args:
        todo: Trials, in order.
        config: The run.
        folder: The run folder.
        budget: No trial begins after its end.
        sampler: Chooses open settings; None if there are none.
        trajectories: Where reported snapshots are added.
        on_chosen: Called with each trial whose settings were chosen.
    """

    def __init__(
        self,
        todo: Sequence[TrialSpec],
        config: RunConfig,
        folder: Place,
        *,
        budget: Budget,
        sampler: Sampler | None,
        trajectories: Trajectories,
        on_chosen: Callable[[TrialSpec], None],
    ) -> None:
        super().__init__()
        self._todo, self._config, self._folder, self._budget = list(todo), config, folder, budget
        self._sampler, self._trajectories, self._on_chosen = sampler, trajectories, on_chosen
        self._running: dict[str, TrialSpec] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher to restore an experiment; we never do, because the run folder has all we need.
        return {}

    def suggest(self, trial_id: str) -> Any:
        """Return the configuration of the next trial, or ``Searcher.FINISHED``."""
        if not self._todo or self._budget.is_spent():
            return Searcher.FINISHED
        spec = self._todo.pop(0)
        if not spec.is_chosen:
            assert self._sampler is not None
            spec = choose(self._config, self._folder, spec.name, self._sampler, trial_id)
            self._on_chosen(spec)
        self._running[trial_id] = spec
        return {"trial": spec.name, "overrides": dict(spec.overrides)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Add the reported snapshots."""
        self._note(self._running[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Let the sampler learn from a trial that ended."""
        spec = self._running.pop(trial_id, None)
        if spec is None:  # Tune has reported it before
            return
        if result:
            self._note(spec, result)
        if self._sampler is not None:
            self._sampler.tell(trial_id, spec, error)

    def _note(self, spec: TrialSpec, result: dict[str, Any]) -> None:
        self._trajectories.take(spec.name, spec.setting, result)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing: the run folder has what a resume needs."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""

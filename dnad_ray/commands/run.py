"""Runs in Python: start a run, open it, read its results, and continue it.

The functions have the options of the command line as keyword arguments, with the same errors. A failed run raises an
error. A paused or interrupted run returns, with its state in :attr:`Run.outcome`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from dnad_ray.commands.baselines import baselines as _baselines
from dnad_ray.commands.composing import Composed
from dnad_ray.commands.composing import compose as _compose
from dnad_ray.commands.deploy import Exported, Under, budgets_of
from dnad_ray.commands.deploy import benchmark as _benchmark
from dnad_ray.commands.deploy import export as _export
from dnad_ray.commands.deploy import load_model as _load_model
from dnad_ray.commands.deploy import measure as _measure
from dnad_ray.commands.fit import fit as _fit
from dnad_ray.commands.keywords import in_keywords, spelled_as_keywords
from dnad_ray.commands.options import AnyPath
from dnad_ray.commands.outcome import Outcome, checked
from dnad_ray.commands.retrain import retrain as _retrain
from dnad_ray.commands.search import search
from dnad_ray.commands.sweep import sweep
from dnad_ray.commands.teacher import teacher
from dnad_ray.errors import RunFolderError
from dnad_ray.run_folder.layout import report_file
from dnad_ray.run_folder.reading import RunContents, check_marker, is_run, read_run
from dnad_ray.storage.places import Place, absolute, address, place, reached

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Run", "fit", "load_model", "make_teacher", "open_run", "run_retrain", "run_search", "run_sweep"]

P = ParamSpec("P")


def _for_python(command: Callable[P, Outcome]) -> Callable[P, Outcome]:
    """Let a command check the types of its arguments, raise if it fails, and spell options as keywords."""

    @in_keywords
    @functools.wraps(command)
    def call(*args: P.args, **kwargs: P.kwargs) -> Outcome:
        outcome = checked(command(*args, **kwargs))
        return replace(outcome, reason=None if outcome.reason is None else spelled_as_keywords(outcome.reason))

    return call


def _starting(command: Callable[P, Outcome]) -> Callable[P, Run]:
    call = _for_python(command)

    @functools.wraps(command)
    def start(*args: P.args, **kwargs: P.kwargs) -> Run:
        outcome = call(*args, **kwargs)
        return Run(outcome.paths["run"], outcome)

    return start


def _continuing(command: Callable[Concatenate[Place, P], Outcome]) -> Callable[Concatenate[Run, P], Run]:
    call = _for_python(command)

    @functools.wraps(command)
    def go_on(self: Run, /, *args: P.args, **kwargs: P.kwargs) -> Run:
        return replace(self, outcome=call(self.path, *args, **kwargs))

    return go_on


@dataclass(frozen=True)
class Run:
    """A run folder, finished or still running. Its content is read at each call.

    Attributes:
        path: The folder, or its URL.
        outcome: The outcome of the call that returned this run. None if it was only opened.
    """

    path: Place
    outcome: Outcome | None = field(default=None, repr=False, compare=False)

    retrain = _continuing(_retrain)
    baselines = _continuing(_baselines)
    measure = _continuing(_measure)

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.name

    def contents(self) -> RunContents:
        """Return the present content of the folder as plain data: configuration, snapshots, history, states."""
        return read_run(self.path)

    def snapshots(self) -> pd.DataFrame:
        """Return every network that the searches recorded so far, as :func:`analysis.load_runs` does."""
        from analysis import load_runs

        return load_runs(self.path)

    @in_keywords
    def front(
        self,
        objectives: str | Sequence[str] | None = None,
        under: Under = (),
        where: Mapping[str, str | float] | None = None,
    ) -> pd.DataFrame:
        """Return the networks that no other one beats in every objective.

        Args:
            objectives: Names of metrics, for example ``("error", "macs")``, or one name. Latency and memory are
                metrics after ``measure``, ``test_error`` after ``retrain``. None is error, multiply-adds and
                parameters, with the test error of trained networks where no search recorded any.
            under: Only networks within the budgets: ``{"macs": "30M"}``.
            where: Of several measurements or trainings of a network those with these values: ``{"threads": 1}``.

        Raises:
            UserError: If a metric is unknown, or several measurements or trainings of a network remain.
        """
        from analysis import front_of, within
        from analysis.measurements import load_for_front

        budgets = budgets_of(under)
        asked = (objectives,) if isinstance(objectives, str) else objectives
        found, names = load_for_front(self.path, asked, budgets, where)
        return front_of(within(found, budgets), names)

    @in_keywords
    def best_under(self, objective: str = "error", **budgets: str | float) -> pd.Series | None:
        """Return the row of the best network within budgets, or None.

        Args:
            objective: The metric to compare.
            **budgets: Budgets by metric, numbers or texts: ``macs="30M"``, ``params=500_000``.

        Raises:
            UserError: If a metric is unknown, or a limit is no number.
        """
        from analysis import best_under
        from analysis.measurements import load_results

        limits = budgets_of(budgets)
        frame = load_results(self.path, [objective, *limits])
        label = best_under(frame, limits, objective)
        return None if label is None else frame.loc[label]

    @in_keywords
    def compose(self, **budgets: str | float) -> Composed:
        """Compose a network for a budget between recorded ones, without searching again.

        Args:
            **budgets: Most multiply-adds and parameters: ``macs="12.3M"``.

        Returns:
            The file of its genotype, for ``run_retrain``, its digest, costs and neighbours.

        Raises:
            UserError: If the budget is not between two recorded networks of a trial.
        """
        return _compose(self.path, budgets)

    def retrained(self) -> pd.DataFrame:
        """Return the networks that were trained from scratch, as :func:`analysis.load_retrained` does."""
        from analysis import load_retrained

        return load_retrained(self.path)

    def measurements(self) -> pd.DataFrame:
        """Return what was measured on machines, as :func:`analysis.load_measurements` does."""
        from analysis import load_measurements

        return load_measurements(self.path)

    @in_keywords
    def export(
        self,
        out: AnyPath | None = None,
        *,
        format: str | None = None,
        digest: str | None = None,
        job: str | None = None,
        under: Under = (),
        data: AnyPath | None = None,
    ) -> Exported:
        """Export a retrained network to a file with a model card, and verify the file.

        Args:
            out: The file. None is ``network_DIGEST`` with the suffix of the format.
            format: ``onnx``, ``onnx-int8``, ``openvino``, ``torch-export``, ``safetensors`` or ``python``. None
                takes it from the suffix.
            digest: Beginning of the digest of the network.
            job: The job that trained the network.
            under: Only networks within the budgets, ``{"macs": "30M"}``. The most accurate one is exported.
            data: Images for ``onnx-int8``, a folder or a named dataset. None are those of the run.

        Raises:
            UserError: If there is no such network, or the file cannot be written in that format.
        """
        return _export(self.path, out, format=format, digest=digest, job=job, under=under, data=data)

    @in_keywords
    def benchmark(
        self,
        job: str | Sequence[str] = (),
        *,
        images: int | None = None,
        repeats: int = 200,
        threads: int = 1,
        data: AnyPath | None = None,
    ) -> pd.DataFrame:
        """Measure size, accuracy and latency of trained networks in every format on this machine.

        Args:
            job: Jobs that trained the networks. Without one: the front of the trained networks.
            images: Number of test images at most. None is as many as take 2e11 multiply-adds, and at least 500.
            repeats: Timed runs of one image.
            threads: Number of CPU threads.
            data: The images, a folder or a named dataset. None are those of the run.

        Returns:
            A row per network and format, with the columns of :class:`dnad_ray.deploy.benchmark.BenchmarkRow`.

        Raises:
            UserError: If an argument is impossible, or the images are not those of the networks.
        """
        import pandas as pd

        rows = _benchmark(self.path, job=job, images=images, repeats=repeats, threads=threads, data=data)
        table: pd.DataFrame = pd.DataFrame([asdict(row) for row in rows])
        return table

    @in_keywords
    def report(self, out: AnyPath | None = None) -> Place:
        """Write the HTML report, by default as ``report.html`` in the run folder; returns the file."""
        from analysis import write_report

        return write_report(self.path, report_file(self.path) if out is None else place(out, "report"))


@in_keywords
def open_run(run: AnyPath) -> Run:
    """Open a run folder, finished or still running.

    Args:
        run: The folder, or its URL.

    Raises:
        RunFolderError: If the folder has no run.
    """
    folder = absolute(place(run))
    if not (reached(folder) and is_run(folder)):
        raise RunFolderError("RUN", address(folder), "a folder that `run_search` or `run_sweep` made")
    check_marker(folder)
    return Run(folder)


fit = _starting(_fit)
load_model = in_keywords(_load_model)
run_search = _starting(search)
run_sweep = _starting(sweep)
run_retrain = _starting(_retrain)
make_teacher = in_keywords(teacher)

"""Summary sentences of a report: counts, unfinished trials, range and quality of the front, cautions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from analysis.charts.words import shown
from analysis.frame import unlike_images
from analysis.measurements import comparable, retrained_networks, sets_of_images
from analysis.pareto import OBJECTIVES, front_of, hypervolume_share, knee_of, reference_point
from dnad_ray.run_folder.metrics import metric
from dnad_ray.run_folder.reading import RunContents
from dnad_ray.run_folder.records import BASELINE_ORIGINS
from dnad_ray.run_folder.states import TrialState
from dnad_ray.text import counted

__all__ = ["Pick", "Summary", "Unfinished", "summarise", "trained_front"]

# If these differ, costs or errors were measured in different ways and cannot be compared on one front.
_MEASURED_BY = {
    "dataset": "the dataset",
    "image_size": "the image size",
    "num_classes": "the number of classes",
    "init_channels": "the width of the counted networks",
    "counter": "the counter of MACs",
    "config.data.validation_share": "the share of validation images",
    "config.data.split_seed": "the validation split",
}


class Unfinished(NamedTuple):
    """A trial that did not finish, and why."""

    run: str
    trial: str
    state: str
    reason: str


class Pick(NamedTuple):
    """A notable network: title, reason, and its label in the frame."""

    title: str
    why: str
    label: Any


class Summary(NamedTuple):
    """The text of a report before its first chart.

    Attributes:
        sentences: What was trained from scratch, counts, span of the front, hypervolume and compute.
        unfinished: Trials without a proper end.
        picks: Networks of the front: the best, the knee, the smallest.
        trained: The same of the networks that were trained from scratch, with labels of :func:`trained_front`.
        cautions: Differences between snapshots that make them hard to compare.
        problems: What could not be read.
    """

    sentences: tuple[str, ...]
    unfinished: tuple[Unfinished, ...]
    picks: tuple[Pick, ...]
    trained: tuple[Pick, ...]
    cautions: tuple[str, ...]
    problems: tuple[str, ...]


def trained_front(retrained: pd.DataFrame) -> pd.DataFrame:
    """Return the front of the networks that were trained from scratch alike, by test error; baselines are left out.

    Args:
        retrained: As :func:`analysis.measurements.retrained_frame` returns it.
    """
    networks = retrained_networks(retrained)
    networks = networks[~networks["origin"].isin(BASELINE_ORIGINS)]
    return front_of(comparable(networks) if len(networks) else networks, ("test_error", *OBJECTIVES[1:]))


def summarise(
    runs: Sequence[RunContents], frame: pd.DataFrame, history: pd.DataFrame, retrained: pd.DataFrame
) -> Summary:
    """Summarise the results of runs.

    Args:
        runs: Runs as :func:`analysis.frame.read_runs` returns them.
        frame: Their snapshots.
        history: Their epochs.
        retrained: Networks that were trained from scratch, a row per seed.
    """
    front = front_of(frame)
    num_ladder = int((front["kind"] == "ladder").sum())
    return Summary(
        sentences=(*_trained(retrained), *_sentences(runs, frame, history, front, len(retrained))),
        unfinished=tuple(_unfinished(runs)),
        picks=tuple(_picks(front, front_of(frame[frame["kind"] != "ladder"]))),
        trained=tuple(_picks_of_trained(trained_front(retrained))),
        cautions=(*unlike_images(runs), *_cautions_of_training(retrained), *_cautions(frame, len(front), num_ladder)),
        problems=tuple(f"{run.name}: {problem}" for run in runs for problem in run.problems),
    )


def _trained(retrained: pd.DataFrame) -> Iterable[str]:
    """Yield the best of what was trained from scratch: the only errors here that another program would measure too."""
    networks = retrained_networks(retrained)
    if not len(networks):
        return
    best = comparable(networks).sort_values(["test_error", "macs"], kind="stable").iloc[0]
    spread = f" (standard deviation {100 * best['accuracy_std']:.2f} points)" if best["num_seeds"] > 1 else ""
    split = "test images" if best["split"] == "test" else f"{best['split']} images, on which the search selected"
    yield (
        f"{counted(len(networks), 'network')} trained from scratch; the best has an error of "
        f"{shown('test_error', best['test_error'])} on {split}, the mean of {counted(int(best['num_seeds']), 'seed')}"
        f"{spread}, at {shown('macs', best['macs'])} MACs."
    )


def _sentences(
    runs: Sequence[RunContents], frame: pd.DataFrame, history: pd.DataFrame, front: pd.DataFrame, num_retrained: int
) -> Iterable[str]:
    states = Counter(status["state"] for run in runs for status in run.status.values())
    num_trials = sum(states.values())
    if num_retrained and not num_trials:
        return  # trained without a search
    found = (
        f"{counted(len(frame), 'snapshot')} (recorded networks) of {counted(frame['digest'].nunique(), 'architecture')}"
        if len(frame)
        else "no snapshot yet"
    )
    yield f"{counted(len(runs), 'run')} with {counted(num_trials, 'trial')} (searches) left {found}."
    if states:
        yield "Trials: " + ", ".join(f"{states[state]} {state.words}" for state in TrialState if states[state]) + "."
    if len(front):
        yield _span(front)
        corner = reference_point(frame)
        share = hypervolume_share(front[list(OBJECTIVES)].to_numpy(dtype=float), corner)
        reference = ", ".join(
            f"{metric(name).label} {shown(name, value)}" for name, value in zip(OBJECTIVES, corner, strict=True)
        )
        yield (
            f"It beats {shown('hypervolume', share)} of the box from zero to the reference point ({reference}; costs "
            "are those of the densest network): its hypervolume, which is better the larger it is."
        )
    seconds = _device_seconds(frame, history)
    if seconds:
        devices = ", ".join(sorted(frame["device"].unique()))
        yield f"The trials took {shown('device_seconds', seconds)} device-seconds{' on ' if devices else ''}{devices}."


def _span(front: pd.DataFrame) -> str:
    best, smallest = _best(front), _smallest(front)
    ends = [
        f"{shown('error', front.at[x, 'error'])} at {shown('macs', front.at[x, 'macs'])} MACs" for x in (best, smallest)
    ]
    if len(front) == 1:
        return f"The front is one network: proxy error {ends[0]}."
    if best == smallest:
        return f"The front holds {len(front)} networks; the smallest has the lowest proxy error too: {ends[0]}."
    return f"The front holds {len(front)} networks, from a proxy error of {ends[0]} to {ends[1]}."


def _picks(front: pd.DataFrame, scored: pd.DataFrame) -> Iterable[Pick]:
    """Yield the picks; the best is that of ``scored``, the front of networks scored on all images, if there is any."""
    if not len(front):
        return
    of = " of the networks scored on all validation images" if len(scored) and not scored.equals(front) else ""
    yield from _named(f"proxy error{of}", _best(scored if len(scored) else front), knee_of(front), _smallest(front))


def _picks_of_trained(front: pd.DataFrame) -> Iterable[Pick]:
    if len(front):
        errors = front.rename(columns={"test_error": "error"})
        yield from _named("error after training", _best(errors), knee_of(errors), _smallest(errors))


def _named(error: str, best: Any, knee: Any, smallest: Any) -> Iterable[Pick]:
    if best == smallest:
        yield Pick("Best and smallest", f"the lowest {error}, and the fewest MACs", best)
    else:
        yield Pick("Best", f"the lowest {error}", best)
    if knee is not None:
        yield Pick("Knee", "where the front bends most: more MACs gain little beyond it", knee)
    if best != smallest:
        yield Pick("Smallest", "the fewest MACs", smallest)


def _cautions_of_training(retrained: pd.DataFrame) -> Iterable[str]:
    if (number := sets_of_images(retrained)) > 1:
        names = ", ".join(sorted(set(retrained["dataset"])))
        yield (
            f"Networks were trained on {number} sets of images ({names}): errors of two sets cannot be compared. "
            "Chart and first sentence are about the set with the most networks."
        )


def _cautions(frame: pd.DataFrame, num_front: int, num_ladder: int) -> Iterable[str]:
    if num_ladder:
        yield (
            f"{num_ladder} of the {counted(num_front, 'network')} on the front were scored on a part of the validation "
            "images only (kind ladder): their errors are less certain, and the lowest of them are too low."
        )
    for name, words in _MEASURED_BY.items():
        if name in frame and frame[name].nunique() > 1:
            values = ", ".join(sorted(map(str, frame[name].unique())))
            yield f"Snapshots differ in {words} ({values}): their errors or costs cannot be compared."


def _best(front: pd.DataFrame) -> Any:
    return front.sort_values(["error", "macs", "params"], kind="stable").index[0]


def _smallest(front: pd.DataFrame) -> Any:
    return front.sort_values(["macs", "error", "params"], kind="stable").index[0]


def _unfinished(runs: Sequence[RunContents]) -> Iterable[Unfinished]:
    for run in runs:
        for trial, status in run.status.items():
            if status["state"] is not TrialState.FINISHED:
                yield Unfinished(run.name, trial, status["state"].words, str(status.get("reason") or ""))


def _device_seconds(frame: pd.DataFrame, history: pd.DataFrame) -> float:
    # Both count from the start of the trial; the one written last has the larger value.
    both = pd.concat([part[["run", "trial", "device_seconds"]] for part in (frame, history)])
    return float(both.groupby(["run", "trial"])["device_seconds"].max().sum())

"""Display for terminals: one line for the run, and a progress bar per trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dnad_ray.errors import one_line
from dnad_ray.run_folder.metrics import metric
from dnad_ray.run_folder.states import TrialState
from dnad_ray.text import counted, duration_in_words
from dnad_ray.watch.moments import Activity, Moment, RunBegan, RunEnded, Said
from dnad_ray.watch.standing import Standing, TrialStanding

__all__ = ["LiveTable"]

_BAR_WIDTH = 12
_LEAST_ROWS, _LEAST_VARIED, _LEAST_BAR, _GAP = 3, 6, 8, 2


@final
class LiveTable:
    """Draws the state of the run once a second; a context manager.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._run: Standing | None = None
        self._activities: dict[str, Activity] = {}
        self._drawn: Group | None = None
        self._live = Live(self, console=console, refresh_per_second=1, vertical_overflow="crop")

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def __call__(self, moment: Moment) -> None:
        """Store the moment; the table is drawn once a second."""
        match moment:
            case Said(text):
                self._console.print(text, markup=False, highlight=False, soft_wrap=True)
            case Activity(name, done, total, _):
                self._activities.pop(name, None)
                if done < total:
                    self._activities[name] = moment
            case RunBegan(run):
                self._run = run
            case RunEnded():
                self._activities.clear()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        try:
            self._drawn = Group(*self._parts(console.size.height, options.max_width))
        except Exception as error:  # noqa: BLE001 - it would end the thread that draws; the next drawing may go well
            self._drawn = self._drawn or Group(Text(f"nothing to show: {one_line(error)}", style="dim"))
        yield self._drawn

    def _parts(self, height: int, width: int) -> Iterable[RenderableType]:
        activities = list(self._activities.values())
        yield from map(_activity_line, activities)
        if self._run is not None:
            yield _head(self._run)
            yield _table(self._run, width, height - len(activities) - 5)


def _activity_line(activity: Activity) -> Table:
    line = Table.grid(padding=(0, 1))
    share = activity.done / max(activity.total, 1)
    bar = ProgressBar(1.0, share, width=30)
    line.add_row(Text(activity.name), bar, Text(f"{share:4.0%}"), Text(activity.text, style="dim"))
    return line


def _head(run: Standing) -> Text:
    counts = run.counts()
    left = run.seconds_left()
    trials = [
        f"{counts.pop(TrialState.FINISHED, 0)} of {counted(len(run.trials), 'trial')} done",
        *(f"{count} {state}" for state, count in counts.items()),
    ]
    clock = [f"{duration_in_words(run.now - run.began)} elapsed"]
    if left is not None:
        clock.append(f"about {duration_in_words(left)} left")
    found = [
        f"{run.num_snapshots} snapshots",
        f"{len(run.front)} on the front",
        f"hypervolume {run.front.hypervolume():{metric('hypervolume').format}}",
    ]
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(run.name, style="bold")
    for separator, part in ((" | ", trials), (" | ", clock), ("\n", found)):
        head.append(separator, style="dim").append(", ".join(part))
    return head.append("\n")


def _left(run: Standing, trial: TrialStanding) -> str:
    if trial.state is not TrialState.RUNNING:
        return trial.state
    left = trial.seconds_left(run.now)
    if trial.num_operations is None:
        return "starting"
    return "" if left is None else duration_in_words(left)


class _Column(NamedTuple):
    """A column: its header, whether it has numbers, and its text for a trial."""

    header: str
    is_number: bool
    cell: Callable[[Standing, TrialStanding], str]


_COLUMNS = (
    _Column("Trial", False, lambda run, trial: trial.spec.name),
    _Column(metric("epoch").label, True, lambda run, trial: f"{trial.epoch}/{trial.epochs}"),
    _Column(metric("num_operations").label, True, lambda run, trial: _shown("num_operations", trial.num_operations)),
    _Column(metric("macs").label, True, lambda run, trial: _short(trial.macs)),
    _Column(metric("proxy_accuracy").label, True, lambda run, trial: _shown("proxy_accuracy", trial.proxy_accuracy)),
    _Column("On front", True, lambda run, trial: str(run.front.count_of[trial.spec.name] or "")),
    _Column("Left", True, _left),
)
# What a terminal is too narrow for, in the order in which it goes.
_SPARABLE = (_COLUMNS[5], _COLUMNS[6], _COLUMNS[2], _COLUMNS[3])


def _table(run: Standing, width: int, num_lines: int) -> Group:
    room = max(_LEAST_ROWS, num_lines)
    trials = list(run.trials.values())
    rest: list[TrialStanding] = []
    if len(trials) > room:
        trials = run.by_interest()
        trials, rest = trials[: room - 1], trials[room - 1 :]
    header, varied = _varied(trials)
    columns = {column: [column.cell(run, trial) for trial in trials] for column in _COLUMNS}
    # Headers may break between words, numbers may not: what is left of the line is for the bar and for what varies.
    widths = {column: max(map(len, (*column.header.split(), *cells))) for column, cells in columns.items()}
    for column in _SPARABLE:
        if sum(widths.values()) + _GAP * len(widths) > width:
            del columns[column], widths[column]
    spare = width - sum(widths.values()) - _GAP * (len(widths) + 2)
    varied_width = min(max(map(len, (header, *varied))), spare - _BAR_WIDTH)
    bar_width = min(2 * _BAR_WIDTH, spare - max(0, varied_width))
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim", collapse_padding=True)
    for column, column_width in widths.items():
        table.add_column(column.header, width=column_width, justify="right" if column.is_number else "left")
        if column is _COLUMNS[0] and varied_width >= _LEAST_VARIED:
            table.add_column(header, width=varied_width, no_wrap=True, overflow="ellipsis")
        if column is _COLUMNS[0] and bar_width >= _LEAST_BAR:
            table.add_column("", width=bar_width)
    for trial, values, *row in zip(trials, varied, *columns.values(), strict=True):
        style = trial.state.style
        cells: list[RenderableType] = [Text(cell, style=style) for cell in row]
        if bar_width >= _LEAST_BAR:
            cells.insert(1, ProgressBar(1.0, trial.share, width=bar_width))
        if varied_width >= _LEAST_VARIED:
            cells.insert(1, Text(values, style=style))
        table.add_row(*cells)
    return Group(table, *([_rest_line(rest)] if rest else []))


def _varied(trials: Sequence[TrialStanding]) -> tuple[str, list[str]]:
    """Return what varies as a header and the values below it; names with the values where trials differ in them."""
    keys = {tuple(trial.spec.overrides) for trial in trials}
    if len(keys) != 1:
        return "Varies", [trial.spec.label for trial in trials]
    header = ", ".join(key.rpartition(".")[2] for key in keys.pop())
    return header, [", ".join(map(str, trial.spec.overrides.values())) for trial in trials]


def _rest_line(rest: Iterable[TrialStanding]) -> Text:
    counts = Counter(trial.state for trial in rest)
    words = ", ".join(f"{count} {state}" for state, count in counts.items())
    return Text(f"and {counts.total()} more: {words}", style="dim", no_wrap=True, overflow="ellipsis")


def _shown(name: str, value: float | None) -> str:
    return "" if value is None else format(value, metric(name).format)


def _short(number: int | None) -> str:
    """Write a cost with three digits.

    >>> _short(1234567), _short(45600), _short(999), _short(None)
    ('1.23 M', '45.6 k', '999', '')
    """
    if number is None:
        return ""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)

"""The live table as a terminal of a given size shows it."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from rich.console import Console
from rich.text import Text

from dnad_ray.run_folder.records import EpochReport
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch import live_table
from dnad_ray.watch.board import Board
from dnad_ray.watch.live_table import LiveTable

REPORT = EpochReport(
    step=9,
    epoch=3,
    num_operations=31,
    train_loss=2.0,
    train_accuracy=0.3,
    kd_loss=None,
    gamma=0.3,
    mu=1.0,
    sparsity=30.0,
    device_seconds=1.0,
)


def terminal(width=100, height=30):
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height)


def drawn(table, console):
    """The lines that the terminal shows now."""
    with console.capture() as capture:
        console.print(table)
    return Text.from_ansi(capture.get()).plain.splitlines()


@pytest.fixture
def sweep(tiny, a_snapshot, tmp_path):
    """A board with a table: t00 has reported, the others wait."""

    def begin(num_trials, console, overrides=None):
        specs = [
            TrialSpec(f"t{index:04d}", {"seed": index, "shrink.rate": 0.1, **(overrides or {})}, tiny())
            for index in range(num_trials)
        ]
        table = LiveTable(console)
        board = Board([table])
        board.begin(specs, tmp_path / "demo")
        board.trial_began("t0000")
        board.report("t0000", dataclasses.replace(a_snapshot, trial="t0000", macs=1_234_567, step=6))
        board.report("t0000", REPORT)
        return board, table

    return begin


def test_live_table_shows_every_number_of_a_trial(sweep):
    console = terminal()
    board, table = sweep(3, console)
    board.trial_ended("t0001", "failed", "the worker died")
    lines = drawn(table, console)
    assert lines[0].startswith("demo | 0 of 3 trials done, 1 running, 1 failed, 1 waiting | 0 s elapsed")
    assert lines[1] == "1 snapshots, 1 on the front, hypervolume 0.0000"
    rows = {line.split()[0]: line for line in lines if line.startswith("t0")}
    assert list(rows) == ["t0000", "t0001", "t0002"]
    numbers = r"t0000 +0, 0\.1 +\S+ +3/6 +31 +1\.23 M +50\.00% +1"
    assert re.match(numbers, rows["t0000"])
    assert rows["t0001"].endswith("failed")
    assert rows["t0002"].endswith("waiting")
    header = " ".join(lines[2:6])
    assert all(word in header for word in ("Trial", "seed, rate", "Epoch", "Operations", "MACs", "accuracy", "Left"))


@pytest.mark.parametrize(("width", "height"), [(160, 50), (100, 30), (80, 24), (60, 24), (40, 12)])
@pytest.mark.parametrize("num_trials", [1, 8, 1000])
def test_live_table_fits_the_terminal(sweep, width, height, num_trials):
    console = terminal(width, height)
    board, table = sweep(num_trials, console)
    board.update("teacher", 1, 4, "epoch 1")
    lines = drawn(table, console)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert any(line.startswith("t0000") and "3/6" in line for line in lines)  # what runs is always there
    assert any("more: " in line for line in lines) == (num_trials > height - 8)


def test_live_table_with_more_trials_than_lines_counts_the_rest(sweep, a_snapshot):
    console = terminal(100, 20)
    board, table = sweep(1000, console)
    cheaper = dataclasses.replace(a_snapshot, trial="t0400", macs=1000, digest="cheaper")
    board.report("t0400", cheaper)
    for index in range(2, 502):
        board.trial_ended(f"t{index:04d}", "finished")
    board.trial_began("t0777")
    lines = drawn(table, console)
    shown = [line.split()[0] for line in lines if line.startswith("t0")]
    # What runs, then what ended (those on the front before the others), and only then what waits.
    assert shown[:4] == ["t0000", "t0777", "t0400", "t0002"]
    assert lines[-1].rstrip() == f"and {1000 - len(shown)} more: {502 - len(shown)} finished, 498 waiting"


def test_live_table_survives_what_cannot_be_drawn(sweep, monkeypatch):
    console = terminal()
    board, table = sweep(2, console)
    before = drawn(table, console)
    monkeypatch.setattr(live_table, "_table", lambda *_: 1 / 0)
    assert drawn(table, console) == before
    assert drawn(LiveTable(console), console) == []
    board.end("finished", {})


def test_live_table_takes_no_markup_from_names(sweep):
    console = terminal(160)
    _, table = sweep(2, console, {"data.root": "[red]/x[/red]"})
    assert any("[red]/x[/red]" in line for line in drawn(table, console))


def test_live_table_shows_activities_until_they_are_done_and_keeps_what_is_said(sweep):
    console = terminal()
    table = LiveTable(console)
    with table:
        board = Board([table])
        board.update("teacher", 1, 4, "epoch 1")
        assert re.fullmatch(r"teacher +\S+ +25% epoch 1 *", drawn(table, console)[0])
        board.update("teacher", 4, 4)
        assert drawn(table, console) == []
        board.say("a lasting [line]")
    assert "a lasting [line]" in Text.from_ansi(console.file.getvalue()).plain

"""Bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dnad_ray import progress
from dnad_ray.progress import duration_in_words, progress_board


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def lines_of(console):
    return console.file.getvalue().splitlines()


def test_board_without_a_terminal_writes_a_line_every_few_seconds(clock):
    console = Console(file=io.StringIO(), width=40)
    with progress_board(console) as board:
        for step in range(1, 21):
            clock.now += 1
            board.update("teacher", step, 20, "of [bold] words")
        board.update("teacher", 20, 20)  # what has ended is not said again
    lines = lines_of(console)
    assert lines == [
        "[    1 s] teacher:   5%  of [bold] words",
        "[    6 s] teacher:  30%  of [bold] words",
        "[   11 s] teacher:  55%  of [bold] words",
        "[   16 s] teacher:  80%  of [bold] words",
        "[   20 s] teacher: 100%  of [bold] words",
    ]


def test_board_lines_of_several_names_do_not_hold_each_other_back(clock):
    console = Console(file=io.StringIO(), width=80)
    with progress_board(console) as board:
        board.update("t00", 1, 4)
        board.update("t01", 1, 4)
        board.update("t00", 4, 4)
    assert [line.split()[3] for line in lines_of(console)] == ["t00:", "t01:", "t00:"]


def test_board_says_long_lines_whole_and_takes_no_markup():
    console = Console(file=io.StringIO(), width=20)
    text = "snapshots in /a/long/path/[red]/that/is/wider/than/the/console"
    with progress_board(console) as board:
        board.say(text)
        board.update("nothing", 0, 0, text)  # no division by zero
    assert lines_of(console)[0] == text
    assert text in lines_of(console)[1]


def test_board_on_a_terminal_shows_bars():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with progress_board(console) as board:
        board.update("t00", 1, 4, "30 operations")
        board.update("t00", 3, 4, "9 operations")
        board.say("a lasting line")
    shown = console.file.getvalue()
    assert "a lasting line" in shown
    assert "t00" in shown
    assert "75 %" in shown
    assert "9 operations" in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (48 * 3600, "2.0 days")],
)
def test_duration_in_words_at_its_borders(seconds, words):
    assert duration_in_words(seconds) == words

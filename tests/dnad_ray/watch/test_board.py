"""The board: who gets what, and that no display can hurt a run; plain lines where there is no terminal."""

from __future__ import annotations

import dataclasses
import io
import threading
import time
import warnings

import pytest
from rich.console import Console

from dnad_ray.run_folder.records import EpochReport
from dnad_ray.text import duration_in_words
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch import board as board_module
from dnad_ray.watch import plain_lines
from dnad_ray.watch.board import Board
from dnad_ray.watch.moments import Reported, RunBegan, RunEnded, Stepped, TrialEnded
from dnad_ray.watch.plain_lines import PlainLines


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(plain_lines, "time", clock)
    monkeypatch.setattr(board_module, "time", clock)
    return clock


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=40)


@pytest.fixture
def specs(tiny):
    return [TrialSpec(f"t{index:02d}", {"seed": index}, tiny()) for index in range(2)]


def lines_of(console):
    return console.file.getvalue().splitlines()


def test_board_without_a_terminal_writes_a_line_every_few_seconds(clock, console):
    board = Board([PlainLines(console)])
    for step in range(1, 21):
        clock.now += 1
        board.update("teacher", step, 20, "of [bold] words")
    board.update("teacher", 20, 20)  # what has ended is not said again
    assert lines_of(console) == [
        "[    1 s] teacher:   5%  of [bold] words",
        "[    6 s] teacher:  30%  of [bold] words",
        "[   11 s] teacher:  55%  of [bold] words",
        "[   16 s] teacher:  80%  of [bold] words",
        "[   20 s] teacher: 100%  of [bold] words",
    ]


def test_board_lines_of_several_names_do_not_hold_each_other_back(clock, console):
    board = Board([PlainLines(console)])
    board.update("sizes", 1, 4)
    board.update("teacher", 1, 4)
    board.update("sizes", 4, 4)
    assert [line.split()[3] for line in lines_of(console)] == ["sizes:", "teacher:", "sizes:"]


def test_board_says_long_lines_whole_and_takes_no_markup():
    console = Console(file=io.StringIO(), width=20)
    text = "snapshots in /a/long/path/[red]/that/is/wider/than/the/console"
    board = Board([PlainLines(console)])
    board.say(text)
    board.update("nothing", 0, 0, text)  # no division by zero
    assert lines_of(console)[0] == text
    assert text in lines_of(console)[1]


def test_board_lines_of_trials(clock, console, specs, a_snapshot, tmp_path):
    board = Board([PlainLines(console)])
    board.report("t00", a_snapshot)  # no run has begun: nobody is told
    board.begin(specs, tmp_path / "demo")
    board.trial_began("t00")
    board.report("t00", a_snapshot)
    board.report("t00", a_snapshot)
    board.trial_ended("t00", "finished")
    board.trial_ended("t01", "failed", "the worker died")
    numbers = "seed 0: 9 operations, proxy error 50.00%, 1 on the front"
    assert lines_of(console) == [
        f"[    0 s] t00:   0%  {numbers}",
        f"[    0 s] t00: 100%  {numbers}",
        "[    0 s] sweep:  50%  trials at their end",
    ]


def test_board_tells_every_display_each_record_once(specs, a_snapshot, tmp_path):
    seen = []
    board = Board([seen.append, lambda moment: None])
    board.begin(specs, tmp_path / "demo")
    board.report("t01", a_snapshot)
    board.report("t01", a_snapshot)
    board.trial_ended("t01", "stopped", "nan")
    board.end("failed", {"reason": "nan"})
    assert [type(moment) for moment in seen] == [RunBegan, Reported, TrialEnded, RunEnded]
    assert seen[1].record is a_snapshot
    assert (seen[2].trial.state, seen[2].trial.reason) == ("stopped", "nan")
    assert seen[3].run.num_snapshots == 1


def test_board_shows_trials_that_are_expected_later(specs, a_snapshot, tmp_path):
    seen = []
    board = Board([seen.append])
    board.expect(specs[1])  # before a run there is nothing to expect
    board.begin(specs[:1], tmp_path / "demo")
    board.expect(specs[1])
    board.report("t01", a_snapshot)
    assert seen[-1].trial.spec is specs[1]


def test_board_survives_a_display_that_fails(console):
    calls = []

    def broken(moment):
        calls.append(moment)
        raise OSError(28, "No space left\non device")

    board = Board([broken, PlainLines(console)])
    with pytest.warns(UserWarning, match="^broken failed and the run goes on: OSError: .*left on device$"):
        board.say("one")
    with pytest.warns(UserWarning, match="goes on: "):
        board.say("two")
    with pytest.warns(UserWarning, match="goes on without it: "):
        board.say("three")
    board.say("four")
    assert len(calls) == 3
    assert lines_of(console) == ["one", "two", "three", "four"]


def test_board_survives_where_warnings_are_errors():
    def broken(moment):
        raise ValueError

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Board([broken]).say("one")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (48 * 3600, "2.0 days")],
)
def test_duration_in_words_at_its_borders(seconds, words):
    assert duration_in_words(seconds) == words


def test_board_shows_one_moment_at_a_time_whichever_threads_write():
    inside, shown = threading.Lock(), []

    def display(moment):
        assert inside.acquire(blocking=False)
        time.sleep(0.001)  # lets the others come
        shown.append(moment.text)
        inside.release()

    board = Board([display])
    writers = [threading.Thread(target=lambda: [board.say("text") for _ in range(20)]) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert shown == ["text"] * 80


def test_board_warns_once_of_a_trial_that_collapses(specs, console, tmp_path):
    board = Board([PlainLines(console)])
    board.begin(specs, tmp_path / "demo")
    report = EpochReport(
        step=3, epoch=1, num_operations=10, train_loss=1.0, train_accuracy=0.5, kd_loss=None, gamma=0.1, mu=0.1,
        sparsity=9.0, device_seconds=1.0,
    )  # fmt: skip
    for epoch, share in enumerate((None, 0.79, 0.8, 0.9), 1):
        board.report("t01", dataclasses.replace(report, step=3 * epoch, epoch=epoch, free_share=share))
    warned = [line for line in lines_of(console) if "warning" in line]
    assert len(warned) == 1
    assert warned[0].startswith("warning: t01: 80% of its operations are skips or pools")
    assert "train.warmup_epochs" in warned[0]


def test_steps_within_an_epoch_are_shown_before_the_first_report(clock, console, specs, tmp_path):
    seen = []
    board = Board([PlainLines(console), lambda moment: seen.append(moment) if isinstance(moment, Stepped) else None])
    board.begin(specs, tmp_path)
    board.trial_began("t00")
    for step in range(1, 60):  # ten steps a second
        clock.now += 0.1
        board.step("t00", step, 1200)
    assert len(seen) == 5  # once a second
    assert lines_of(console) == ["[    5 s] t00:   4%  seed 0: in its first epoch"]
    board.step("t99", 1, 2)  # a trial that never began
    assert len(seen) == 5

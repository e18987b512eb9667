"""Budgets: durations as people write them, and what is said when one is spent."""

from __future__ import annotations

import pytest

from dnad_ray.errors import ConfigError
from dnad_ray.runtime import budget as budget_module
from dnad_ray.runtime.budget import Budget
from dnad_ray.text import parse_duration


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def time(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(budget_module, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), (" 10m ", 600), ("2h", 7200), ("1.5 h", 5400), (".5m", 30), ("1d", 86400), ("0.5", 0.5)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "10 parsecs", "h", "1h30m", "nan", "inf", "1e3", "9" * 400, "10mm"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(
        ConfigError, match=r"--time-budget: got .*; allowed: seconds above 0, or a number with s, m, h or d"
    ):
        parse_duration(text)


def test_time_is_spent_when_it_is_over(clock):
    budget = Budget(60.0)
    assert (budget.deadline, budget.remaining, budget.is_spent()) == (1060.0, 60.0, False)
    clock.now = 1059.0
    assert (budget.remaining, budget.is_spent()) == (1.0, False)
    clock.now = 1061.0
    assert (budget.remaining, budget.is_spent()) == (0.0, True)


def test_no_budget_is_never_spent(clock):
    clock.now = 1e12
    assert (Budget().deadline, Budget().remaining, Budget().is_spent()) == (None, None, False)
    assert list(Budget().left_out(["t00", "t01"])) == []


def test_trials_beyond_the_most_are_left_out():
    assert Budget(max_trials=1).left_out(["t00", "t01", "t02"]) == ["t01", "t02"]
    assert list(Budget(max_trials=3).left_out(["t00", "t01", "t02"])) == []


def test_words_say_which_budget_and_what_is_left(clock):
    budget = Budget(600.0, max_trials=2)
    assert budget.words([], 3) == ""
    assert budget.words(["t02"], 3) == "--max-trials 2 is reached; 1 of 3 trials are not at their end (t02)"
    clock.now += 600
    words = "the time budget of 10 min is spent; 2 of 3 trials are not at their end (t01, t02)"
    assert budget.words(["t01", "t02"], 3) == words

"""The driver of a long sweep stays small: thousands of snapshots through the board and all its displays."""

from __future__ import annotations

import gc
import io
import os
import tracemalloc

import pytest
from rich.console import Console

from analysis.live import live_page, live_script
from benchmarks.driver_memory import play, specs_of
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.watch.board import Board
from dnad_ray.watch.json_lines import JsonLines
from dnad_ray.watch.live_page import LivePage
from dnad_ray.watch.live_table import LiveTable
from dnad_ray.watch.logbook import Logbook
from dnad_ray.watch.moments import Reported
from dnad_ray.watch.tensorboard import EventFiles

# What a trial that has begun keeps: its numbers and its count of front points. Ten snapshots share it.
BYTES_PER_SNAPSHOT = 100


def growth(displays, folder, num_snapshots):
    """Bytes of Python objects per snapshot that came to stay in the second half of the snapshots."""
    marks = {}

    def meter(moment):
        if isinstance(moment, Reported) and isinstance(moment.record, Snapshot):
            count = moment.run.num_snapshots
            if count in (num_snapshots // 2, num_snapshots):
                gc.collect()
                marks[count] = tracemalloc.get_traced_memory()[0]

    folder.mkdir()
    specs = specs_of(num_snapshots // 10)
    tracemalloc.start()
    try:
        play(Board([*displays, meter]), specs, folder, 10)
    finally:
        tracemalloc.stop()
    return (marks[num_snapshots] - marks[num_snapshots // 2]) / (num_snapshots // 2)


class Nowhere(io.StringIO):
    """Takes text and forgets it."""

    def write(self, text):
        return len(text)


@pytest.mark.slow
def test_driver_memory_is_flat_over_thousands_of_snapshots(tmp_path):
    table = LiveTable(Console(file=Nowhere(), force_terminal=True, width=120, height=40))
    with table:
        displays = [table, JsonLines(Nowhere(), Nowhere()), LivePage(live_page, live_script)]
        # The live page keeps the newest 2,000 points; from there on nothing may grow.
        assert growth(displays, tmp_path / "run", 6_000) < BYTES_PER_SNAPSHOT


def test_driver_memory_is_flat_with_event_files(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # whether a disk keeps up is another question
    assert growth([Logbook(EventFiles())], tmp_path / "run", 1_000) < BYTES_PER_SNAPSHOT
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 100


def test_driver_memory_test_would_notice_what_keeps_every_record(tmp_path):
    assert growth([[].append], tmp_path / "run", 1_000) > 3 * BYTES_PER_SNAPSHOT

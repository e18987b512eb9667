"""When the data of the live page is written, and that it stays small whatever the run."""

from __future__ import annotations

import dataclasses
import json

import pytest

from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch import standing
from dnad_ray.watch.board import Board
from dnad_ray.watch.live_page import LivePage


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page of a run in a folder, on a clock that the test moves."""

    class Page:
        now, pictures, folder = 50.0, [], tmp_path / "demo"

        def script(self, picture):
            self.pictures.append(picture)
            return json.dumps(picture)

    page = Page()
    monkeypatch.setattr(standing.Standing, "now", property(lambda run: page.now))
    page.display = LivePage(lambda name: f"page of {name}", page.script, seconds=4.0)
    return page


def specs_of(config, number):
    return [TrialSpec(f"t{index:04d}", {"seed": index}, config) for index in range(number)]


def test_live_page_is_written_when_there_is_something_new_and_not_too_often(page, tiny, a_snapshot):
    board = Board([page.display])
    board.begin(specs_of(tiny(), 2), page.folder)
    assert (page.folder / "live.html").read_text() == "page of demo"
    assert [picture["num_snapshots"] for picture in page.pictures] == [0]
    for step in range(1, 9):
        page.now += 1
        board.report("t0000", dataclasses.replace(a_snapshot, trial="t0000", step=step, macs=1000 - step))
    assert [picture["num_snapshots"] for picture in page.pictures] == [0, 4, 8]
    page.now += 1
    board.report("t0000", dataclasses.replace(a_snapshot, trial="t0000", step=9, macs=500))
    board.end("finished", {})  # the last word is never held back
    assert json.loads((page.folder / "live.js").read_text()) == page.pictures[-1]
    assert (page.pictures[-1]["state"], page.pictures[-1]["num_snapshots"]) == ("finished", 9)
    assert [point["macs"] for point in page.pictures[-1]["front"]] == [500]


def test_live_page_of_a_large_sweep_stays_small(page, tiny, a_snapshot):
    board = Board([page.display])
    config = tiny()
    board.begin(specs_of(config, 1000), page.folder)
    for index in range(3000):
        name, macs = f"t{index % 1000:04d}", 1_000_000 + index
        # All of them are on the front: the worst that can be.
        record = dataclasses.replace(a_snapshot, trial=name, step=index + 1, macs=macs, proxy_accuracy=index / 3000)
        board.report(name, record)
    board.end("finished", {})
    picture = page.pictures[-1]
    sizes = {name: len(picture[name]) for name in ("front", "cloud", "trials")}
    assert sizes == {"front": 2000, "cloud": 2000, "trials": 100}
    assert (picture["num_trials"], picture["num_front"], picture["num_snapshots"]) == (1000, 3000, 3000)
    assert (page.folder / "live.js").stat().st_size < 600_000

"""Limits and pauses: they end a search, and change nothing of what it did until then."""

from __future__ import annotations

import copy

import pytest

from dnad_ray.config.run import LimitConfig
from dnad_ray.costs.table import costs_of
from dnad_ray.run_folder.records import EpochReport, Snapshot
from dnad_ray.runtime.stopping import StopRequest
from dnad_ray.search.limits import limit_reached
from dnad_ray.search.loop import SearchState, search
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import space_named


@pytest.fixture(scope="module")
def whole(tiny, digits):
    """All events of a search without limits."""
    return list(search(start(tiny(), digits)))


def start(config, digits):
    return SearchState.start(config, digits, run="demo", trial="t00")


def test_limit_reached_in_words():
    spent = {"macs": 10**9, "seconds": 60.0, "step": 7, "ends_at": None}
    assert limit_reached(LimitConfig(), **spent) == ""
    assert limit_reached(LimitConfig(seconds=60), **spent) == "limit.seconds 60"
    assert limit_reached(LimitConfig(seconds=60.5), **spent) == ""
    assert limit_reached(LimitConfig(macs=10**9), **spent) == "limit.macs 1e+09"
    assert limit_reached(LimitConfig(macs=10**9 + 1), **spent) == ""


def test_limit_of_seconds_ends_a_replay_where_it_ended_before():
    limit = LimitConfig(seconds=60)
    reached = [limit_reached(limit, 0, seconds, step, 9) for seconds, step in ((99.0, 8), (1.0, 9), (1.0, 10))]
    assert reached == ["", "limit.seconds 60", "limit.seconds 60"]


def test_limit_of_macs_is_three_forward_passes_per_image(tiny, digits):
    config = tiny()
    named = config.space
    dense = space_named(named.name, named.operations, named.num_cells, named.num_nodes).dense()
    shape = NetworkShape(
        images=ImageShape(in_channels=1, image_size=8, num_classes=10), init_channels=named.init_channels
    )
    per_step = 3 * config.train.batch_size * costs_of(dense, shape).macs
    # Nothing is deleted in the first epoch of 3 steps, the warm-up: the limit is reached in its second step.
    state = start(tiny({"limit.macs": 2 * per_step}), digits)
    (snapshot, report) = search(state)
    assert (snapshot.kind, snapshot.step, report.step) == ("final", 2, 2)
    assert (state.macs_spent, state.limit) == (2 * per_step, f"limit.macs {2 * per_step:g}")
    state = start(tiny({"limit.macs": 2 * per_step + 1}), digits)
    assert next(event for event in search(state) if isinstance(event, Snapshot)).step == 3


def test_limit_of_macs_costs_less_when_the_supernet_is_smaller(tiny, digits, whole, timeless):
    state = start(tiny({"limit.macs": 1e18}), digits)
    assert timeless(search(state)) == timeless(whole)
    assert state.limit == ""
    dense = start(tiny({"limit.macs": 1e18}), digits)
    next(search(dense))  # after the warm-up at the earliest
    assert state.macs_spent < state.step * dense.macs_spent / dense.step


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_limit_of_seconds_leaves_the_snapshots_before_it_as_they_are(share, tiny, digits, whole, timeless):
    seconds = whole[-1].device_seconds * share
    state = start(tiny({"limit.seconds": seconds}), digits)
    events = list(search(state))
    snapshots = [event for event in events if isinstance(event, Snapshot)]
    assert snapshots[-1].kind == "final"
    expected = timeless(whole)
    if state.limit:  # else the machine was in a hurry, and the search came to its floor
        assert snapshots[-1].device_seconds >= seconds
        assert state.step < expected[-1]["step"]
    early = timeless(snapshots[:-1])
    assert early == expected[: len(early)]
    assert isinstance(events[-1], EpochReport)


@pytest.mark.parametrize("pause_at", [1, 4, 7, 9])
def test_paused_search_goes_on_as_if_nothing_had_happened(pause_at, tiny, digits, whole, timeless):
    config, seen = tiny(), []
    state = start(config, digits)
    pause = StopRequest("the time is over", "paused")

    def stop():
        seen.append(state.step)
        return pause if state.step == pause_at else None

    events = list(search(state, stop))
    assert seen == list(range(pause_at + 1))  # on CPU the host looks after every step
    assert events.pop() is pause
    assert not state.is_finished
    saved = copy.deepcopy(state.state_dict())
    resumed = SearchState.resume(saved, config, digits, run="demo", trial="t00")
    assert timeless(events) + timeless(search(resumed)) == timeless(whole)
    ours = [{**entry, "device_seconds": 0} for entry in resumed.history]
    assert ours == [{**e.to_dict(), "device_seconds": 0} for e in whole if isinstance(e, EpochReport)]


def test_search_at_its_end_does_not_pause(tiny, digits):
    state = start(tiny({"train.epochs": 2, "train.look_steps": 100}), digits)
    events = list(search(state, lambda: StopRequest("too late") if state.step >= 6 else None))
    assert isinstance(events[-1], EpochReport)
    assert state.is_finished

"""A search stops between two steps, with a state that goes on bit for bit, however often it is asked to."""

from __future__ import annotations

import os
import signal
import time

import pytest

from dnad_ray.config.run import config_to_dict
from dnad_ray.run_folder.checkpoints import load_newest, save_checkpoint
from dnad_ray.run_folder.reading import read_run, read_status
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.run_folder.writing import create_run
from dnad_ray.runtime import stopping
from dnad_ray.runtime.stopping import Interrupted, StopRequest, StopSignals
from dnad_ray.search.loop import SearchState, search
from dnad_ray.search.prepare import PreparedRun, run_search
from dnad_ray.search.trial import run_trial
from dnad_ray.trials.spec import TrialSpec

REQUEST = StopRequest("enough")


def receive(signum):
    os.kill(os.getpid(), signum)
    time.sleep(5)


def after(num_checks):
    """A check that stops a search after so many steps."""
    left = iter(range(num_checks))
    return lambda: REQUEST if next(left, None) is None else None


def test_search_stopped_after_every_step_is_the_unbroken_one(tiny, digits, timeless, tmp_path):
    expected = list(search(SearchState.start(tiny(), digits, run="demo", trial="t00")))
    found, steps = [], []
    state = SearchState.start(tiny(), digits, run="demo", trial="t00")
    while not state.is_finished:
        *events, last = search(state, after(1))
        found += events if last is REQUEST else [*events, last]
        steps.append(state.step)
        save_checkpoint(tmp_path / "checkpoint", state.state_dict(), state.step)
        saved = load_newest([tmp_path / "checkpoint"])
        state = SearchState.resume(saved, tiny(), digits, run="demo", trial="t00")
    assert steps == list(range(1, expected[-1].step + 1))
    assert timeless(found) == timeless(expected)
    assert [type(event) for event in found] == [type(event) for event in expected]


def test_search_asked_before_its_first_step_takes_none(tiny, digits):
    state = SearchState.start(tiny(), digits, run="demo", trial="t00")
    assert list(search(state, after(0))) == [REQUEST]
    assert (state.step, state.is_finished) == (0, False)


def test_search_that_looks_now_and_then_stops_at_a_look(tiny, digits, timeless):
    config = tiny({"train.look_steps": 2})
    state = SearchState.start(config, digits, run="demo", trial="t00")
    list(search(state, after(1)))
    assert state.step == 2  # after one step, the last look knows nothing of it
    list(search(state, after(1)))
    assert state.step == state.steps_per_epoch == 3


def test_search_at_its_end_is_not_asked(tiny, digits):
    state = SearchState.start(tiny(), digits, run="demo", trial="t00")
    last = None
    for event in search(state):
        last = event
    assert not isinstance(last, StopRequest)
    assert list(search(state, after(0))) == []


@pytest.mark.parametrize("final", ["interrupted", "stopped"])
def test_trial_that_is_stopped_says_why_and_where(final, tiny, digits, tmp_path):
    folder = create_run(tmp_path / "demo", config_to_dict(tiny()), "0.1")
    spec = TrialSpec("t00", {"seed": 0}, tiny())
    request = StopRequest("the time is over", final)
    events = run_trial(spec, digits, None, folder, None, stop=lambda: request if read_run(folder).snapshots else None)
    *_, (last, state) = events
    assert last is request
    status = read_status(folder, "t00")
    assert (status["state"], status["reason"], status["step"]) == (final, "the time is over", state.step)
    assert status["state"].is_finished == (final == "stopped")


def test_run_search_that_is_stopped_saves_and_goes_on_from_there(tiny, digits, timeless, tmp_path, quiet_board):
    folder = create_run(tmp_path / "demo", config_to_dict(tiny()), "0.1")
    spec, prepared = TrialSpec("t00", {"seed": 0}, tiny()), PreparedRun(digits, None)
    for num_steps in (4, 4, 5):  # in the middle of epochs, where neither a snapshot nor the time asks for a checkpoint
        run_search(spec, prepared, folder, quiet_board, stop=after(num_steps))
        saved = load_newest(folder.glob("trials/t00/checkpoints/*"))
        assert saved["step"] == read_status(folder, "t00")["step"]
    assert saved["step"] == 13
    run_search(spec, prepared, folder, quiet_board)
    contents = read_run(folder)
    expected = list(search(SearchState.start(tiny(), digits, run="demo", trial="t00")))
    assert timeless(contents.snapshots) == timeless(expected)
    assert [entry["epoch"] for entry in contents.history["t00"]] == list(range(1, len(contents.history["t00"]) + 1))
    assert len(contents.history["t00"]) == sum(not isinstance(event, Snapshot) for event in expected)
    assert (contents.status["t00"]["state"], contents.status["t00"]["attempt"]) == ("finished", 4)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signals_first_one_is_a_request_where_it_is_deferred(signum, capfd):
    with StopSignals() as signals:
        signals.defer()
        assert signals() is None
        os.kill(os.getpid(), signum)
        assert signals() == StopRequest(f"interrupted by {signum.name}")
    assert capfd.readouterr().err == "dnad-ray: stopping at the end of the step; Ctrl-C once more ends at once\n"


def test_signals_second_one_ends_at_once_but_an_echo_of_the_first_does_not(monkeypatch, capfd):
    with StopSignals() as signals:
        signals.defer()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)  # within milliseconds
        assert signals().reason == "interrupted by SIGINT"
        monkeypatch.setattr(stopping, "_SAME_PRESS_SECONDS", 0.0)
        with pytest.raises(Interrupted) as caught:
            receive(signal.SIGINT)
        assert caught.value.signum == signal.SIGINT
    assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_at_once_where_nothing_is_deferred(signum):
    def wait():
        with StopSignals():
            receive(signum)

    with pytest.raises(Interrupted) as caught:
        wait()
    assert isinstance(caught.value, KeyboardInterrupt)
    assert caught.value.signum == signum


def test_signals_are_given_back_and_taken_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopSignals() as signals:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as a library does
        signals.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals() is not None
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

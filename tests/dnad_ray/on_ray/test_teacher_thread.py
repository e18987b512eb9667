"""A teacher that is made while others start: handed over, given up, or the reason why there is none."""

from __future__ import annotations

import threading

import pytest
import torch

from dnad_ray.distill.teacher import TeacherFile
from dnad_ray.errors import ConfigError
from dnad_ray.on_ray.teacher_thread import TeacherThread
from dnad_ray.run_folder.checkpoints import load_newest
from dnad_ray.runtime.stopping import Stopped, StopRequest

FILE = TeacherFile("{}", b"weights")
SECONDS = 60


@pytest.fixture
def given():
    return []


def test_preparing_goes_on_beside_its_caller(given):
    workers_run = threading.Event()

    def make(check):
        assert workers_run.wait(SECONDS)
        assert check() is None
        return FILE

    with TeacherThread(make, given.append) as preparing:
        assert given == []
        workers_run.set()
        preparing.finish()
        assert given == [FILE]
        assert preparing.request() is None


def test_preparing_uses_the_threads_of_a_trial(given):
    before = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            with TeacherThread(lambda check: torch.get_num_threads(), given.append):
                pass
    finally:
        torch.set_num_threads(before)
    assert given == [1, 2]


def test_preparing_says_what_kept_it_from_that(given):
    def make(check):
        raise ConfigError("distill.teacher.weights", "missing", "a file")

    with TeacherThread(make, given.append) as preparing:
        with pytest.raises(ConfigError, match="missing"):
            preparing.finish()
        assert preparing.request() == StopRequest("there is no teacher")
    assert given == []


def test_preparing_is_given_up_once_somebody_asks_to_stop(given):
    steps = []

    def make(check):
        while (request := check()) is None:
            steps.append(len(steps))
        try:
            raise Stopped(request)
        except Exception:  # noqa: BLE001 - what a library around the training may do
            pytest.fail("taken for a failure")

    stop = iter([None, None, StopRequest("interrupted by SIGINT")])
    with TeacherThread(make, given.append, lambda: next(stop)) as preparing:
        with pytest.raises(KeyboardInterrupt, match="interrupted by SIGINT"):
            preparing.finish()
        assert preparing.request() == StopRequest("interrupted by SIGINT")  # nobody waits for it any more
    assert (given, steps) == ([], [0, 1])


def test_preparing_that_has_no_time_left_is_no_failure(given):
    def make(check):
        raise Stopped(check())

    spent = StopRequest("the time budget was spent", "paused")
    with TeacherThread(make, given.append, lambda: spent) as preparing:
        preparing.finish()
        assert preparing.request() == spent
    assert given == []


def test_preparing_ends_with_its_caller(given):
    begun = threading.Event()

    def make(check):
        while (request := check()) is None:
            begun.set()
        raise Stopped(request)

    def fail_beside_it():
        with TeacherThread(make, given.append):
            assert begun.wait(SECONDS)
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk"):
        fail_beside_it()
    assert not [thread for thread in threading.enumerate() if thread.name == "teacher"]


@pytest.mark.ray
def test_sweep_whose_teacher_diverges_leaves_no_folder(start, tmp_path):
    pytest.importorskip("ray")
    out = tmp_path / "demo"
    settings = ["--set", "distill.teacher.learning_rate=1e30", "--set", "distill.teacher.epochs=50"]
    done = start("sweep", "smoke", "--trials", "1", "--out", out, *settings)
    said, err = done.communicate(timeout=300)
    assert (done.returncode, err.count("\n")) == (1, 1), (said, err)
    assert err.startswith("dnad-ray: error: the teacher's loss became ")
    assert not out.exists()


@pytest.mark.ray
def test_sweep_whose_time_is_spent_on_its_teacher_pauses(start, tmp_path):
    pytest.importorskip("ray")
    out = tmp_path / "demo"
    settings = ["--set", "distill.teacher.epochs=1000000", "--time-budget", "2"]  # Ray alone takes longer to start
    done = start("sweep", "smoke", "--trials", "1", "--out", out, *settings)
    said, err = done.communicate(timeout=300)
    assert (done.returncode, err) == (0, "")
    assert "the time budget of 2 s is spent; 1 of 1 trials are not at their end" in said
    assert load_newest((out / "teacher" / "checkpoints").iterdir()) is not None

"""How the driver stops a sweep and hears of steps, with Ray's and Tune's side played by the test."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("ray")

from ray.exceptions import RayActorError

from dnad_ray.on_ray import mailbox as mailbox_module
from dnad_ray.on_ray.mailbox import StepNews, step_sender
from dnad_ray.on_ray.sweep_stop import SweepStop
from dnad_ray.runtime.stopping import StopRequest

REQUEST = StopRequest("interrupted by SIGTERM")


class Fake:
    """A mailbox whose answers are there at once; a dead one fails."""

    def __init__(self, monkeypatch, is_dead=False):
        self.calls, self.is_dead, self.news = [], is_dead, {}
        for name in ("ask_to_stop", "note_steps", "steps"):
            setattr(
                self, name, SimpleNamespace(remote=lambda *given, name=name: self.calls.append((name, *given)) or name)
            )
        monkeypatch.setattr(mailbox_module.ray, "wait", lambda calls, timeout: (calls, []))
        monkeypatch.setattr(mailbox_module.ray, "get", self.answer)

    def answer(self, call):
        if self.is_dead:
            raise RayActorError
        return self.news if call == "steps" else None


def trial(name):
    return SimpleNamespace(trial_id=f"id-{name}", config={"trial": name})


def test_stop_waits_for_the_trials_that_search(monkeypatch):
    mailbox, requests = Fake(monkeypatch), []
    ending = SweepStop(lambda: requests[0] if requests else None, mailbox, lambda name: name != "t02")
    for name in ("t00", "t01", "t02"):
        ending.on_trial_start(1, [], trial(name))
    assert not ending.stop_all()
    requests.append(REQUEST)
    assert not ending.stop_all()
    assert not ending.stop_all()
    assert mailbox.calls == [("ask_to_stop", REQUEST)]  # once
    ending.on_trial_complete(1, [], trial("t00"))
    assert not ending.stop_all()
    ending.on_trial_error(1, [], trial("t01"))
    assert ending.stop_all()  # the worker of t02 is still loading


def test_stop_before_any_trial_searches_waits_for_none(monkeypatch):
    ending = SweepStop(lambda: REQUEST, Fake(monkeypatch), lambda _: False)
    ending.on_trial_start(1, [], trial("t00"))
    assert ending.stop_all()


def test_stop_whose_mailbox_is_dead_waits_for_none(monkeypatch):
    ending = SweepStop(lambda: REQUEST, Fake(monkeypatch, is_dead=True), lambda _: True)
    ending.on_trial_start(1, [], trial("t00"))
    assert ending.stop_all()


def test_steps_are_sent_now_and_then_and_never_waited_for(monkeypatch):
    mailbox, now = Fake(monkeypatch), [0.0]
    monkeypatch.setattr(mailbox_module.time, "monotonic", lambda: now[0])
    assert step_sender(None, "t00") is None
    send, news = step_sender(mailbox, "t00"), StepNews(mailbox)
    send(1, 30)
    assert (news(), mailbox.calls) == ({}, [])
    now[0] = 2.0
    send(2, 30)
    send(3, 30)
    assert mailbox.calls == [("note_steps", "t00", 2, 30)]
    mailbox.news = {"t00": (2, 30)}
    assert news() == {}  # it asks
    assert news() == {"t00": (2, 30)}
    assert news() == {}
    assert mailbox.calls[1:] == [("steps",)]
    now[0], mailbox.is_dead = 4.0, True
    assert (news(), news()) == ({}, {})  # a dead mailbox is no reason to fail


def test_mailbox_loads_neither_torch_nor_tune():
    # Its actor has a process of its own, which would wait seconds for them.
    code = "import sys, dnad_ray.on_ray.mailbox; print(sorted({'torch', 'ray.tune'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")

"""One command at a time writes to a run folder, and none through links that lead out of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from upath import UPath

from dnad_ray.errors import RunFolderError
from dnad_ray.run_folder import lock
from dnad_ray.run_folder.lock import check_links, writing_to

HOLDER = """
import os, sys, time
from pathlib import Path
from dnad_ray.run_folder.lock import writing_to
with writing_to(Path(sys.argv[1])):
    if not os.fork():
        print(os.getpid(), flush=True)  # it has given up what it got of the lock
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "demo"
    folder.mkdir()
    return folder


@pytest.fixture
def url():
    folder = UPath("memory://runs/locked")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    folder.fs.rm(folder.path, recursive=True)


def named(folder, **values):
    """Leave the lock of a command on another machine."""
    now = time.time()
    holder = {"pid": 7, "host": "elsewhere", "machine": "another", "since": now, "beat": now}
    (folder / ".lock").write_text(json.dumps(holder | values))


def test_lock_is_of_one_command_and_leaves_nothing(run):
    with writing_to(run):
        holder = json.loads((run / ".lock").read_text())
        assert (holder["pid"], holder["beat"] >= holder["since"]) == (os.getpid(), True)
        with (
            pytest.raises(
                RunFolderError, match=rf"demo, which process {os.getpid()} on .* writes to since 20"
            ) as caught,
            writing_to(run),
        ):
            pytest.fail("two writers")
        assert str(caught.value).endswith("allowed: a run that no other command writes to")
    assert list(run.iterdir()) == []
    with writing_to(run):
        pass


def test_lock_ends_with_a_killed_process_also_where_its_children_live(run):
    script = [sys.executable, "-c", HOLDER, str(run)]
    holder = subprocess.Popen(script, stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(RunFolderError, match=f"which process {holder.pid} on"), writing_to(run):
            pytest.fail("two writers")
        holder.kill()
        holder.wait()
        os.kill(child, 0)  # it lives
        assert (run / ".lock").exists()
        with writing_to(run):
            assert json.loads((run / ".lock").read_text())["pid"] == os.getpid()
    finally:
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()
    assert list(run.iterdir()) == []


def test_lock_of_another_machine_ends_two_minutes_after_its_last_sign_of_life(run, url):
    for folder in (run, url):
        named(folder, beat=time.time() - 100)
        words = r"process 7 on elsewhere .* try again in (20|19) seconds"
        with pytest.raises(RunFolderError, match=words), writing_to(folder):
            pytest.fail("two writers")
        named(folder, beat=time.time() - 121)
        with writing_to(folder):
            assert json.loads((folder / ".lock").read_text())["pid"] == os.getpid()
        assert not (folder / ".lock").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": []}', '{"beat": "now"}', '{"beat": 9e300, "since": -1}'])
def test_lock_that_says_nothing_is_taken(content, run, url):
    for folder in (run, url):
        (folder / ".lock").write_text(content)
        with writing_to(folder):
            pass


def test_lock_of_a_url_is_held_against_everybody(url):
    with writing_to(url), pytest.raises(RunFolderError, match="try again in"), writing_to(url):
        pytest.fail("two writers")
    assert not (url / ".lock").exists()


def test_lock_gives_signs_of_life(run, url, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    for folder in (run, url):
        with writing_to(folder):
            first = json.loads((folder / ".lock").read_text())["beat"]
            end = time.monotonic() + 20
            while lock._holder(folder / ".lock").get("beat", 0) <= first:
                assert time.monotonic() < end
                time.sleep(0.01)


def test_lock_where_the_file_system_has_none_is_kept_by_its_file(run, monkeypatch):
    def without_locks(*_):
        raise OSError(lock._NO_LOCKS[0], "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", without_locks)
    with writing_to(run), pytest.raises(RunFolderError, match="try again in"), writing_to(run):
        pytest.fail("two writers")
    assert list(run.iterdir()) == []


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_lock_that_is_no_file_is_refused(make, run):
    make(run / ".lock")
    with pytest.raises(RunFolderError, match="run folder: got"), writing_to(run):
        pytest.fail("no lock")


@pytest.mark.parametrize("where", ["a", "trials/t00/checkpoints/00000009", "ray/attempt-2", "a/b/c/d/e/f/g"])
@pytest.mark.parametrize("target", ["..", "../other", "/nowhere", "{itself}"])
def test_links_that_lead_out_are_found_at_every_depth(where, target, run):
    (run / where).parent.mkdir(parents=True, exist_ok=True)
    (run / "inside").mkdir()
    (run / where).parent.joinpath("good").symlink_to(run / "inside")
    check_links(run)
    link = run / where
    link.symlink_to(link if target == "{itself}" else run / target if target.startswith("..") else target)
    with pytest.raises(RunFolderError, match=rf"got '{link}'; allowed: a run without links that lead out of it"):
        check_links(run)
    with pytest.raises(RunFolderError, match="link"), writing_to(run):
        pytest.fail("a link")


def test_links_are_a_matter_of_disks(url):
    check_links(url)

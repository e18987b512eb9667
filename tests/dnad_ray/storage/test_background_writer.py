"""Files written beside the work: in order, and nothing after one that failed."""

from __future__ import annotations

import errno
import threading

import pytest

from dnad_ray.errors import ResourceError
from dnad_ray.storage import background_writer as background
from dnad_ray.storage.background_writer import BackgroundWriter


def files_of(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writer_returns_before_the_disk_does_and_keeps_the_order(tmp_path, monkeypatch):
    gate, order, write = threading.Event(), [], background.write_bytes

    def slow(file, content):
        gate.wait(60)
        order.append(file.name)
        write(file, content)

    monkeypatch.setattr(background, "write_bytes", slow)
    with BackgroundWriter() as writer:
        for name in "cab":
            writer.write(tmp_path / name, name.encode())
        assert files_of(tmp_path) == []
        gate.set()
        writer.settle()
        assert files_of(tmp_path) == ["a", "b", "c"]
    assert order == ["c", "a", "b"]
    assert (tmp_path / "a").read_bytes() == b"a"


def test_writer_at_its_end_has_written_everything(tmp_path):
    with BackgroundWriter() as writer:
        for number in range(20):
            writer.write(tmp_path / "file", str(number).encode())
    assert (tmp_path / "file").read_bytes() == b"19"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("writing")]


@pytest.fixture
def full_for_b(monkeypatch):
    write = background.write_bytes

    def refuses(file, content):
        if file.name == "b":
            raise ResourceError("space on the disk of", str(file.parent), "enough room") from OSError(errno.ENOSPC, "")
        write(file, content)

    monkeypatch.setattr(background, "write_bytes", refuses)


def test_writer_says_once_what_failed_and_writes_nothing_after_it_until_then(full_for_b, tmp_path):
    with BackgroundWriter() as writer:
        for name in "abc":
            writer.write(tmp_path / name, b"content")
        with pytest.raises(ResourceError, match="space on the disk of"):
            writer.settle()
        assert files_of(tmp_path) == ["a"]
        writer.settle()
        writer.write(tmp_path / "d", b"content")
    assert files_of(tmp_path) == ["a", "d"]


def test_writer_at_its_end_says_what_failed(full_for_b, tmp_path):
    with pytest.raises(ResourceError), BackgroundWriter() as writer:
        writer.write(tmp_path / "b", b"content")


def test_writer_does_not_hide_the_error_that_ended_the_work(full_for_b, tmp_path):
    def work():
        with BackgroundWriter() as writer:
            writer.write(tmp_path / "b", b"content")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()

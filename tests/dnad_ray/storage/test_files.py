"""Paths that lead nowhere."""

from __future__ import annotations

import pytest

from dnad_ray.run_folder.reading import read_run
from dnad_ray.run_folder.writing import create_run
from dnad_ray.storage.files import is_inside


def test_links_in_a_circle_are_in_no_folder(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert not is_inside(tmp_path / "a" / "file", tmp_path / "folder")


@pytest.mark.parametrize("place", ["trials/t00", "trials/t00/snapshots"])
def test_run_with_links_in_a_circle_opens(tmp_path, place):
    folder = create_run(tmp_path / "demo", {}, "0.1")
    link = folder / place
    link.parent.mkdir(parents=True)
    link.symlink_to(link)
    assert read_run(folder).snapshots == []

from __future__ import annotations

import errno
import json

import pytest

from analysis.charts.front import plot_front
from analysis.charts.template import DARK, INK, in_dark
from analysis.figure_file import save_figure
from analysis.frame import load_runs
from dnad_ray.errors import ResourceError, UserError


@pytest.fixture
def figure(make_run):
    return plot_front(load_runs(make_run()))


def test_save_figure_as_html_and_json(figure, tmp_path):
    page = save_figure(figure, tmp_path / "front.html").read_text(encoding="utf-8")
    assert 'src="http' not in page
    data = json.loads(save_figure(figure, tmp_path / "front.json", dark=True).read_text(encoding="utf-8"))
    assert data["layout"]["template"]["layout"]["paper_bgcolor"] == DARK["white"]


@pytest.mark.parametrize("name", ["front.html", "front.json"])
def test_save_figure_onto_a_full_disk_keeps_the_old_one(name, figure, tmp_path, monkeypatch):
    folder = tmp_path / "charts"
    folder.mkdir()
    (folder / name).write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match="space on the disk"):
        save_figure(figure, folder / name)
    assert [(file.name, file.read_text()) for file in folder.iterdir()] == [(name, "old")]


def test_save_figure_refuses_in_words(figure, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"\.html or \.json or \.pdf"):
        save_figure(figure, tmp_path / "front.gif")
    with pytest.raises(UserError, match="existing folder"):
        save_figure(figure, tmp_path / "no" / "front.png")
    monkeypatch.setattr("analysis.figure_file.find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"pip install .*\[pictures\]"):
        save_figure(figure, tmp_path / "front.png")
    assert not list(tmp_path.glob("front*"))


@pytest.mark.slow
def test_save_figure_as_pictures(figure, tmp_path):
    pytest.importorskip("kaleido", reason="the exporter is not installed")
    try:
        picture = save_figure(figure, tmp_path / "front.png", width=400, height=300)
    except ResourceError as error:
        pytest.skip(str(error))
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(picture.read_bytes()[16:20], "big") == 800  # twice as many pixels, for print
    assert b"<svg" in save_figure(figure, tmp_path / "front.svg").read_bytes()
    assert save_figure(figure, tmp_path / "front.pdf", dark=True).read_bytes()[:4] == b"%PDF"


def test_in_dark_changes_colours_only_and_not_the_original(figure):
    before = figure.to_json()
    dark = in_dark(figure)
    assert figure.to_json() == before
    line = next(trace for trace in dark.data if trace.name == "front")
    assert line.line.color == DARK[INK]
    assert [len(trace.x) for trace in dark.data] == [len(trace.x) for trace in figure.data]

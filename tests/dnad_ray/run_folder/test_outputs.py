"""Where a file may be written that the user named, for every command that writes one."""

from __future__ import annotations

import os
import stat

import pandas as pd
import plotly.graph_objects as go
import pytest

from analysis.figure_file import save_figure
from analysis.interop.tables import write_points
from dnad_ray.errors import UserError
from dnad_ray.run_folder.outputs import output_file
from dnad_ray.run_folder.writing import create_run


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "run", {}, "0.1")


def test_output_file_is_new_or_a_regular_one(tmp_path):
    assert output_file(tmp_path / "a.json", (".json",)) == tmp_path / "a.json"
    (tmp_path / "a.json").write_text("old")
    assert output_file(str(tmp_path / "a.json"), (".json", ".txt")) == tmp_path / "a.json"
    assert output_file(tmp_path / "A.JSON", (".json",)) == tmp_path / "A.JSON"
    assert (tmp_path / "a.json").read_text() == "old"


def test_output_file_of_the_current_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert output_file("a.json", (".json",)) == tmp_path / "a.json"


@pytest.mark.parametrize("name", ["folder.json", "pipe.json", "none/a.json", "a.txt", "a", "loop.json", "x\0.json"])
def test_output_file_that_is_none_is_refused_in_one_line(tmp_path, name):
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "loop.json").symlink_to("loop.json")
    with pytest.raises(UserError, match=r"--out: got .*; allowed: ") as caught:
        output_file(f"{tmp_path}/{name}", (".json",))
    assert "\n" not in str(caught.value)
    assert stat.S_ISFIFO((tmp_path / "pipe.json").stat().st_mode)


def test_output_file_follows_a_link_to_a_file_of_its_kind_only(tmp_path):
    for name in ("new.json", "there.json", "other.txt"):
        (tmp_path / f"to-{name}.json").symlink_to(name)
    (tmp_path / "there.json").write_text("old")
    assert output_file(tmp_path / "to-there.json.json", (".json",)) == tmp_path / "there.json"
    assert output_file(tmp_path / "to-new.json.json", (".json",)) == tmp_path / "new.json"
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "to-pipe.json").symlink_to("pipe.json")
    for name in ("to-other.txt.json", "to-pipe.json"):
        with pytest.raises(UserError, match="--out"):
            output_file(tmp_path / name, (".json",))


def test_output_file_is_no_record_of_a_run(run, tmp_path):
    (run / "trials").mkdir()
    (run / "trials" / "status.json").write_text("{}")
    (tmp_path / "mine.json").symlink_to(run / "run.json")
    (run / "mine.html").write_text("old")
    for file in (run / "run.json", run / "trials" / "status.json", tmp_path / "mine.json"):
        with pytest.raises(UserError, match="no record of a run"):
            output_file(file, (".json", ".html"))
    # What is not there yet, and pages, may be written.
    assert output_file(run / "new.json", (".json",)) == run / "new.json"
    assert output_file(run / "mine.html", (".html",)) == run / "mine.html"
    assert output_file(run / ".." / "new.json", (".json",)) == tmp_path / "new.json"


def test_output_file_does_not_follow_a_link_of_a_run(run, tmp_path):
    for name in ("page.html", "data.json"):
        (tmp_path / name).write_text("mine")
        (run / name).symlink_to(tmp_path / name)
    assert output_file(run / "page.html", (".html",)) == run / "page.html"  # the caller replaces it
    with pytest.raises(UserError, match="no record of a run"):
        output_file(run / "data.json", (".json",))


def test_output_file_at_a_url_is_no_record_of_a_run(run):
    upath = pytest.importorskip("upath")
    place = upath.UPath(run.as_uri())
    assert output_file(place / "new.html", (".html",)) == place / "new.html"
    for file, suffix in ((place / "run.json", ".json"), (place / "new.txt", ".html")):
        with pytest.raises(UserError, match="--out"):
            output_file(file, (suffix,))


def test_every_writer_leaves_pipes_and_records_alone(run, tmp_path, command):
    marker = (run / "run.json").read_bytes()
    table = pd.DataFrame({"macs": [1]})
    (run / "snapshots.parquet").write_bytes(b"records")
    for name in ("pipe.html", "pipe.csv"):
        os.mkfifo(tmp_path / name)
    for write in (
        lambda: save_figure(go.Figure(), run / "run.json"),
        lambda: save_figure(go.Figure(), tmp_path / "pipe.html"),
        lambda: write_points(table, run / "snapshots.parquet"),
        lambda: write_points(table, tmp_path / "pipe.csv"),
    ):
        with pytest.raises(UserError, match="allowed: a "):
            write()
    for file in (tmp_path / "pipe.html", run / "run.json"):
        code, _, err = command("draw", "darts-v2", "--cells", 3, "--out", file)
        assert (code, err.count("\n"), "--out" in err) == (2, 1, True), err
    assert stat.S_ISFIFO((tmp_path / "pipe.html").stat().st_mode)
    assert stat.S_ISFIFO((tmp_path / "pipe.csv").stat().st_mode)
    assert (run / "run.json").read_bytes() == marker
    assert (run / "snapshots.parquet").read_bytes() == b"records"

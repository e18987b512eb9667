"""Run folders at URLs, on servers that are real: FTP everywhere, S3 where its packages are installed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest

from analysis import load_runs
from dnad_ray.errors import RunFolderError
from dnad_ray.run_folder import checkpoints as checkpoint
from dnad_ray.run_folder.reading import read_genotype, read_run
from dnad_ray.run_folder.writing import create_run
from dnad_ray.storage.background_writer import BackgroundWriter
from dnad_ray.storage.files import write_bytes, write_json
from dnad_ray.storage.places import address, place, put, reached, remove_folder


@pytest.fixture(scope="session")
def ftp(tmp_path_factory):
    """The URL of an FTP server on loopback, in a process of its own, and the folder that it serves."""
    root = tmp_path_factory.mktemp("ftp")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--write", "--interface", "127.0.0.1", "--port", str(port), "--directory", str(root)]
    server = subprocess.Popen([sys.executable, "-m", "pyftpdlib", *options], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"ftp://127.0.0.1:{port}", root
    server.kill()
    server.wait()


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """The URL of a bucket on an S3 server on loopback; the environment says where it is, as for a real one."""
    pytest.importorskip("s3fs", reason="needs the extra s3")
    server = pytest.importorskip("moto.server", reason="needs moto[s3], flask and flask-cors").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "none")
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
        server.stop()


@pytest.fixture(params=["ftp", "s3"])
def base(request, tmp_path):
    """A folder of the test's own on each of the servers."""
    url = request.getfixturevalue(request.param)
    return place(f"{url if request.param == 's3' else url[0]}/{tmp_path.name}")


def test_place_of_a_path_is_a_path(tmp_path):
    assert place("runs/demo") == Path("runs/demo")
    assert place(tmp_path) == tmp_path
    assert place(f"file://{tmp_path}") == tmp_path
    assert place("C:/a") == Path("C:/a")


@pytest.mark.parametrize("url", ["s3://bucket/a/b", "ftp://host:2121/a/b", "sftp://ann@host/a/b", "ftp://host/a"])
def test_place_address_makes_the_same_place_again(url):
    pytest.importorskip({"s3": "s3fs", "sftp": "paramiko"}.get(url.partition(":")[0], "fsspec"))
    where = place(url)
    assert address(where) == url
    assert place(address(where / "c")) == where / "c"
    assert place(where) is where


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://run", "every process"),
        ("simplecache::s3://bucket/run", "every process"),
        ("nonsense://run", "fsspec knows"),
        ("ftp://ann:secret@host/run", "without a password"),
    ],
)
def test_place_that_cannot_be_is_refused(url, words):
    with pytest.raises(RunFolderError, match=words) as caught:
        place(url, "--out")
    assert "secret" not in str(caught.value)


def test_place_without_its_package_names_the_package(command, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as where it is not installed
    for arguments in (("sweep", "smoke", "--out", "gs://bucket/run"), ("front", "gs://bucket/run")):
        code, out, err = command(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "got 'gs://bucket/run'; allowed: a protocol whose package is installed (pip install gcsfs)" in err


def test_place_nobody_answers_is_one_line(command):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"ftp://127.0.0.1:{bound.getsockname()[1]}/run"
        for arguments in (
            ("sweep", "smoke", "--out", url),
            ("sweep", "smoke", "--out", url, "--resume"),
            ("front", url),
        ):
            code, _, err = command(*arguments)
            assert (code, err.count("\n")) == (2, 1)
            assert f"got '{url}'; allowed: storage that answers and may be read (ConnectionRefusedError" in err


def test_put_replaces_whole_files_and_leaves_nothing_else(base):
    write_bytes(base / "a" / "b" / "file", b"one")
    write_bytes(base / "a" / "b" / "file", b"two")
    assert (base / "a" / "b" / "file").read_bytes() == b"two"
    assert [path.name for path in (base / "a" / "b").iterdir()] == ["file"]
    remove_folder(base / "a")
    assert not reached(base / "a" / "b" / "file")


def test_put_that_breaks_off_leaves_the_old_file(ftp, tmp_path, monkeypatch):
    file = place(f"{ftp[0]}/{tmp_path.name}/file")
    put(file, b"old")

    def breaks(*_):
        raise ConnectionResetError("gone")

    monkeypatch.setattr(type(file.fs), "mv", breaks)
    with pytest.raises(OSError, match="gone"):
        put(file, b"new and longer")
    assert file.read_bytes() == b"old"
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_files_are_written_by_a_thread_while_another_one_reads(ftp, tmp_path):
    folder = place(f"{ftp[0]}/{tmp_path.name}")
    put(folder / "first", b"0")
    assert reached(folder)  # from now on paths below it have the connection of this thread
    with BackgroundWriter() as writer:
        for number in range(30):
            writer.write(folder / f"{number % 3}" / f"{number}", b"content")
            assert (folder / "first").read_bytes() == b"0"
    written = [file for file in (ftp[1] / tmp_path.name).rglob("*") if file.is_file()]
    assert sorted(file.name for file in written) == sorted(["first", *map(str, range(30))])


def test_place_sees_what_another_process_writes(ftp, tmp_path):
    folder = place(f"{ftp[0]}/{tmp_path.name}")
    write_json(folder / "first.json", 1)
    assert [path.name for path in folder.iterdir()] == ["first.json"]
    (ftp[1] / tmp_path.name / "second.json").write_text("2")
    assert sorted(path.name for path in folder.iterdir()) == ["first.json", "second.json"]
    assert reached(folder / "second.json")


def test_create_run_refuses_what_is_not_free(base):
    folder = create_run(base / "demo", {"seed": 0}, "0.1")
    assert read_run(folder).config == {"seed": 0}
    with pytest.raises(RunFolderError, match="without a run"):
        create_run(folder, {}, "0.1")
    write_bytes(base / "other" / "note", b"mine")
    with pytest.raises(RunFolderError, match="new or empty"):
        create_run(base / "other", {}, "0.1")
    with pytest.raises(RunFolderError, match="run name"):
        create_run(base / "a b", {}, "0.1")


@pytest.fixture
def all_checkpoints(monkeypatch):
    """A checkpoint at every snapshot, however long it takes to bring one to a server."""
    monkeypatch.setattr(checkpoint, "LEAST_GAP_FACTOR", 0.0)
    monkeypatch.setattr(checkpoint, "LEAST_GAP_SECONDS", 0.0)


@pytest.mark.usefixtures("all_checkpoints")
def test_search_into_a_url_is_resumed_and_read_beside_a_local_run(base, config_file, tmp_path, timeless, command):
    url, local = address(base / "demo"), tmp_path / "demo"
    imitating = ("--set", "distill.kind=logits")
    code, out, err = command("search", config_file, *imitating, "--out", url)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"report: {url}/report.html"
    names = {path.name for path in (base / "demo").iterdir()}
    files = {"config.yaml", "images.json", "snapshots.parquet", "front.json", "report.html", "run.json"}
    assert names == files | {
        "genotypes",
        "teacher",
        "trials",
        "tensorboard",
        "live.html",
        "live.js",
    }  # and nothing temporary
    contents = read_run(url)
    assert contents.problems == ()
    for record in json.loads((base / "demo" / "front.json").read_text()):
        assert read_genotype(url, record["digest"]).digest == record["digest"]
    code, _, err = command("search", config_file, *imitating, "--out", url)
    assert code == 2
    assert f"got '{url}'; allowed: a folder without a run; add --resume" in err

    # What a killed search leaves behind: an end that is missing, here with its snapshot and its newest checkpoint.
    trial = base / "demo" / "trials" / "t00"
    _, newest = sorted((trial / "checkpoints").iterdir(), key=address)
    remove_folder(newest)
    (base / "demo" / "snapshots.parquet").unlink()
    lost = max(trial.glob("snapshots/*.json"), key=address)
    lost.unlink()
    written = {path.name: path.stat().st_mtime for path in trial.glob("snapshots/*.json")}
    write_json(trial / "status.json", {"state": "running", "attempt": 1})
    code, out, err = command("search", config_file, *imitating, "--out", url, "--resume")
    assert (code, err) == (0, "")
    assert "teacher:" not in out  # it is read, not trained again
    after = read_run(url)
    assert after.status["t00"]["attempt"] == 2
    assert timeless(after.snapshots) == timeless(contents.snapshots)
    assert {path.name: path.stat().st_mtime for path in trial.glob("snapshots/*.json") if path != lost} == written

    # On a disk the same search leaves the same records, and both runs are read together.
    code, _, err = command("search", config_file, *imitating, "--out", local)
    assert (code, err) == (0, "")
    assert timeless(read_run(local).snapshots) == timeless(contents.snapshots)
    frame = load_runs([url, local, url])
    assert frame.groupby("run_path").size().to_dict() == dict.fromkeys((url, str(local)), len(contents.snapshots))
    code, out, err = command("front", url, local, "--json")
    assert (code, err) == (0, "")
    assert {record["run_path"] for record in json.loads(out)} <= {url, str(local)}
    code, out, err = command("report", url, local, "--out", address(base / "both.html"))
    assert (code, out, err) == (0, f"report: {address(base / 'both.html')}\n", "")
    assert "<html" in (base / "both.html").read_text()

"""Somebody else's run folder: `front`, `report` and `--resume` execute nothing in it and say what is wrong."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dnad_ray.commands.options import read_config
from dnad_ray.config.run import config_to_dict, with_overrides
from dnad_ray.distill.teacher import TeacherFile, load_teacher, save_teacher
from dnad_ray.errors import RunFolderError
from dnad_ray.run_folder.lock import writing_to
from dnad_ray.run_folder.reading import read_run
from dnad_ray.run_folder.records import SNAPSHOT_COLUMNS
from dnad_ray.run_folder.writing import create_run, write_parquet
from dnad_ray.search.prepare import PreparedRun, run_search
from dnad_ray.storage.files import write_json
from dnad_ray.storage.weights_reader import WeightsError, parse_state
from dnad_ray.trials.spec import TrialSpec

ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202e[red]x"
HTML = "<script>alert(1)</script><img src=x onerror=alert(2)>"


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.fixture(scope="module")
def whole(config_file, digits, quiet_board_of_module, tmp_path_factory):
    """A finished run. Read only."""
    config = with_overrides(read_config(str(config_file)), {})
    folder = create_run(tmp_path_factory.mktemp("whole") / "demo", config_to_dict(config), "0.1")
    run_search(
        TrialSpec("t00", {"seed": config.seed}, config), PreparedRun(digits, None), folder, quiet_board_of_module
    )
    write_parquet(folder)
    return folder


@pytest.fixture(scope="module")
def quiet_board_of_module():

    from dnad_ray.watch.board import Board

    return Board([])


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "demo")


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "broken-in"


def seal(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.pt").write_bytes(content)
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({"schema": 2, "step": 10**6, "files": {"state.pt": entry}}))


def test_hostile_pickles_wherever_tools_look_for_them_are_not_executed(command, config_file, run, marker, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    evil = f"cos\nmkdir\n(V{marker}\ntR.".encode()  # a pickle, by hand: makes a folder where it is read
    tune = run / "ray" / "attempt-1"
    (tune / "t00").mkdir(parents=True)
    state = {"runner_data": {"_earliest_stopper": evil.hex()}, "trial_data": [[evil.hex(), evil.hex()]], "stats": {}}
    (tune / "experiment_state-2026-01-01_00-00-00.json").write_text(json.dumps(state))
    names = ("tuner.pkl", "trainable.pkl", "searcher-state-2026.pkl", "search_gen_state-2026.json", "trial_runner.pkl")
    for file in (*(tune / name for name in names), tune / "t00" / "params.pkl", run / "params.pkl", run / "config.pkl"):
        file.write_bytes(evil)
    buffer = io.BytesIO()
    torch.save({"value": Evil(marker)}, buffer)
    for number, content in enumerate((evil, buffer.getvalue())):
        seal(run / "trials" / "t00" / "checkpoints" / f"9999999{number}", content)
        seal(tune / "t00" / f"checkpoint_00000{number}", content)
    (run / "teacher").mkdir()
    (run / "teacher" / "teacher.safetensors").write_bytes(evil)
    status = run / "trials" / "t00" / "status.json"
    expected = read_run(run).snapshots
    assert command("front", run)[0] == 0
    assert command("report", run)[0] == 0
    write_json(status, json.loads(status.read_text()) | {"state": "running"})
    code, said, err = command("search", config_file, "--out", run, "--resume")
    assert (code, err) == (0, ""), said  # it went on from an intact one, or began again
    assert len(read_run(run).snapshots) >= len(expected)
    assert not marker.exists()


def evil_states(marker):
    def saved(value):
        buffer = io.BytesIO()
        torch.save(value, buffer)
        return buffer.getvalue()

    plain = saved({"value": torch.zeros(1000)})
    with zipfile.ZipFile(io.BytesIO(plain)) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    squeezed = io.BytesIO()
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    yield "pickle", saved({"value": Evil(marker)})
    yield "compressed", squeezed.getvalue()
    yield "sparse", saved({"value": torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (10**12,))})
    yield "quantised", saved({"value": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)})
    yield "expanded", saved({"value": torch.zeros(1).expand(10**12)})
    yield "meta", saved({"value": torch.zeros(10**6, device="meta")})
    yield "parameter", saved({"value": torch.nn.Parameter(torch.zeros(2))})
    yield "no dictionary", saved([1])
    yield "torn", plain[:-100]
    yield "nothing", b""


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # of torch, about what is planted
def test_hostile_states_are_refused(marker):
    refused = []
    for name, content in evil_states(marker):
        with pytest.raises(WeightsError, match=r"^x: got .*; allowed: ") as caught:
            parse_state(content, "x")
        assert "\n" not in str(caught.value)
        refused.append(name)
    assert len(refused) == 10
    assert not marker.exists()


@pytest.mark.parametrize(
    "case", ["huge network", "other shapes", "long header", "deep header", "more tensors", "bit flip"]
)
def test_hostile_teachers_are_refused(case, small_teacher, tmp_path):
    file = save_teacher(tmp_path, small_teacher)
    description, content = json.loads(file.description), bytearray(file.weights)
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), bytes(content[8 + length :])
    if case == "huge network":
        description["shape"]["init_channels"] = 10**6  # terabytes
    elif case == "other shapes":
        name = max(header, key=lambda key: header[key].get("data_offsets", [0, 0])[1] if key != "__metadata__" else 0)
        header[name]["shape"] = [*header[name]["shape"], 1]
    elif case == "more tensors":
        header["more"] = {"dtype": "F32", "shape": [0], "data_offsets": [len(data), len(data)]}
    text = json.dumps(header).encode()
    if case == "deep header":
        text = b'{"a":' * 5000
    sealed = (len(text) if case != "long header" else 2**62).to_bytes(8, "little") + text + data
    if case == "bit flip":
        sealed = bytes([*sealed[:-1], sealed[-1] ^ 1])
    else:
        description["sha256"] = hashlib.sha256(sealed).hexdigest()
    with pytest.raises(RunFolderError, match=r"^teacher: got .*; allowed: an intact teacher") as caught:
        load_teacher(TeacherFile(json.dumps(description), sealed), torch.device("cpu"))
    assert "\n" not in str(caught.value)


def bomb():
    """A million rows that name one text of a hundred kilobytes: 100 GB, in a file of 100 kB."""
    rows = 1_000_000
    table = pa.table({"trial": pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * 100_000])})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, store_schema=False)  # so that it reads as text
    return buffer.getvalue().to_pybytes()


def first_snapshot(run):
    return sorted(run.glob("trials/t00/snapshots/*.json"))[0]


def changed(run, **values):
    file = first_snapshot(run)
    write_json(file, json.loads(file.read_text()) | values)


DAMAGES = {
    "parquet bomb": lambda run: (run / "snapshots.parquet").write_bytes(bomb()),
    "parquet torn": lambda run: (run / "snapshots.parquet").write_bytes((run / "snapshots.parquet").read_bytes()[:-9]),
    "parquet link": lambda run: relink(run / "snapshots.parquet", "/etc/hostname"),
    "history deep": lambda run: (run / "trials/t00/history.json").write_text("[" * 100_000),
    "history nested": lambda run: (run / "trials/t00/history.json").write_text("[" * 50 + "]" * 50),
    "status twice": lambda run: (run / "trials/t00/status.json").write_text('{"state": "a", "state": "b"}'),
    "status pipe": lambda run: repipe(run / "trials/t00/status.json"),
    "status device": lambda run: relink(run / "trials/t00/status.json", "/dev/zero"),
    "snapshot NaN": lambda run: first_snapshot(run).write_text('{"macs": NaN}'),
    "snapshot 1e999": lambda run: first_snapshot(run).write_text('{"macs": 1e999}'),
    "snapshot 10^400": lambda run: first_snapshot(run).write_text('{"macs": 1' + "0" * 400 + "}"),
    "snapshot bytes": lambda run: first_snapshot(run).write_bytes(b"\xff\xfe\x00"),
    "snapshot trial": lambda run: changed(run, trial="../../etc"),
    "snapshot digest": lambda run: changed(run, digest="../../../etc/passwd"),
    "snapshot text": lambda run: changed(run, counter="x" * 10**6),
    "snapshot escapes": lambda run: changed(run, trial=ESCAPES),
    "trial link": lambda run: (run / "trials" / "t01").symlink_to("/etc"),
    "trial name": lambda run: (run / "trials" / ESCAPES).mkdir(),
    "config laughs": lambda run: (run / "config.yaml").write_text("a: &a [x]\nb: [*a, *a]\n"),
    "config python": lambda run: (run / "config.yaml").write_text("!!python/object/apply:os.mkdir [broken-in]"),
    "config link": lambda run: relink(run / "config.yaml", "/etc/hostname"),
    "config large": lambda run: (run / "config.yaml").write_text("#" * (2**20 + 1)),
}


def relink(file, target):
    file.unlink()
    file.symlink_to(target)


def repipe(file):
    file.unlink()
    os.mkfifo(file)


@pytest.mark.filterwarnings("always::UserWarning")  # as where no test makes errors of them
@pytest.mark.parametrize("damage", DAMAGES)
def test_hostile_part_of_a_run_is_a_problem_and_the_rest_loads(damage, command, run, whole, tmp_path):
    DAMAGES[damage](run)
    code, said, err = command("front", run, "--json")
    assert code == 0
    assert err.startswith("dnad-ray: warning: run demo: ")
    assert err.count("\n") == 1
    found = read_run(run)
    assert len(found.problems) == 1, found.problems
    expected = read_run(whole).snapshots
    assert found.snapshots == expected  # what the parquet file and the single files say is the same
    assert not {char for char in said + err if not char.isprintable() and char != "\n"}
    assert not (tmp_path / "broken-in").exists()


def test_hostile_names_reach_neither_terminal_nor_page(command, run, tmp_path):
    marker = json.loads((run / "run.json").read_text())
    rows = read_run(run).snapshots
    for name in ("kind", "counter", "dataset", "device", "kd_kind"):
        for row in rows:
            row[name] = ESCAPES + HTML
    shutil.rmtree(run / "trials")
    pq.write_table(
        pa.Table.from_pylist([{n: row[n] for n in SNAPSHOT_COLUMNS} for row in rows]), run / "snapshots.parquet"
    )
    write_json(run / "run.json", marker | {"name": ESCAPES + HTML})
    code, said, err = command("front", run, run)
    assert code == 0
    assert "\\x1b[2J" in said  # shown
    assert not {char for char in said + err if not char.isprintable() and char != "\n"}
    assert "[red]x" in said
    code, said, err = command("report", run, "--out", tmp_path / "page.html")
    assert code == 0
    page = (tmp_path / "page.html").read_text()
    assert HTML not in page
    assert "<img src=x" not in page


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 10**5,
        b'{"kind": 1, "kind": 2}',
        b"NaN",
        b'{"kind": "dnad-ray run", "schema": 1e999}',
        b" " * 10**6,
    ],
    ids=range(8),
)
def test_hostile_marker_or_genotype_is_refused_in_one_line(content, command, config_file, run, tmp_path):
    (run / "run.json").write_bytes(content)
    for name in ("front", "report"):
        code, said, err = command(name, run)
        assert (code, err.count("\n"), "Traceback" in said + err) == (2, 1, False), err
    (tmp_path / "genotype.json").write_bytes(content)
    settings = ["--set", "distill.kind=logits", "--set", f"distill.teacher.genotype={tmp_path / 'genotype.json'}"]
    code, said, err = command("search", config_file, "--out", tmp_path / "new", *settings)
    assert (code, err.count("\n"), "Traceback" in said + err) == (2, 1, False), err
    assert not (tmp_path / "new").exists()


LINKS = (
    *(
        "trials",
        "teacher",
        "teacher/checkpoints",
        "trials/t00/checkpoints/00000099",
        "tensorboard/t00",
        "ray/attempt-2",
    ),
    *("measured", "retrained/job", "baselines", "deep/er/link"),
)
WRITERS = {
    "search": lambda config, run: ("search", config, "--out", run, "--resume"),
    "retrain": lambda _, run: ("retrain", run, "--recipe", "quick", "--no-ray"),
    "baselines": lambda _, run: ("baselines", run, "--recipe", "quick", "--no-ray", "--kinds", "random"),
    "measure": lambda _, run: ("measure", run, "--repeats", 1),
}


@pytest.mark.parametrize(("writer", "name"), [*(("search", name) for name in LINKS), *((w, LINKS[3]) for w in WRITERS)])
def test_hostile_links_do_not_lead_writers_out_of_the_run(writer, name, command, config_file, run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).parent.mkdir(exist_ok=True, parents=True)
    (run / name).symlink_to(elsewhere)
    code, said, err = command(*WRITERS[writer](config_file, run))
    assert (code, err.count("\n")) == (2, 1), (said, err)
    assert "link" in err
    assert list(elsewhere.iterdir()) == []
    assert not (run / ".lock").exists()


@pytest.mark.parametrize("writer", WRITERS)
def test_second_writer_is_refused_in_one_line(writer, command, config_file, run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with writing_to(run):
        code, said, err = command(*WRITERS[writer](config_file, run))
    assert (code, err.count("\n"), "a run that no other command writes to" in err) == (2, 1, True), (said, err)
    assert f"process {os.getpid()} on " in err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_links_in_the_folder_of_a_teacher_do_not_lead_out_of_it(command, config_file, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "teacher" / "checkpoints").mkdir(parents=True)
    (tmp_path / "teacher" / "checkpoints" / "00000009").symlink_to(tmp_path / "elsewhere")
    code, said, err = command("teacher", config_file, "--out", tmp_path / "teacher")
    assert (code, err.count("\n"), "link" in err) == (2, 1, True), (said, err)
    assert list((tmp_path / "elsewhere").iterdir()) == []

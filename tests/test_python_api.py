"""The pages about the Python API: each public name is there, and the notebook runs in a kernel, shows and stops."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

import dnad_ray as dr
from dnad_ray.run_folder.reading import read_status

MEMBERS = [name for name in vars(dr.Run) if not name.startswith("_")]


def page(repository):
    return (repository / "docs" / "python.md").read_text(encoding="utf-8")


def notebook(repository):
    return json.loads((repository / "docs" / "python.ipynb").read_text(encoding="utf-8"))


def test_page_names_everything_that_is_public(repository):
    text = page(repository)
    assert [name for name in dr.__all__ if not re.search(rf"`(dr\.)?{name}\b", text)] == []
    assert [name for name in MEMBERS if not re.search(rf"`run\.{name}\b", text)] == []


@pytest.mark.parametrize("kind", ["page", "notebook"])
def test_examples_use_names_that_are_there(kind, repository):
    if kind == "page":
        code = "\n".join(re.findall(r"```python\n(.*?)```", page(repository), re.DOTALL))
    else:
        cells = notebook(repository)["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    used = set(re.findall(r"\bdr\.(\w+)", code))
    assert used >= {"run_search", "open_run", "load_model"}
    assert used <= set(dr.__all__)
    assert set(re.findall(r"\brun\.(\w+)", code)) <= {*MEMBERS, *dr.Run.__dataclass_fields__}
    assert set(re.findall(r"\bmodel\.(\w+)", code)) <= set(dir(dr.Model))
    compile(code, "example", "exec")


def test_notebook_has_no_outputs(repository):
    for cell in notebook(repository)["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@pytest.fixture
def kernel_place(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the networks are so small that a second thread costs more
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_notebook_runs_in_a_kernel_and_shows_progress(repository, kernel_place):
    nbformat = pytest.importorskip("nbformat", reason="notebooks need nbclient and ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="notebooks need nbclient and ipykernel")
    book = nbformat.reads(json.dumps(notebook(repository)), as_version=4)
    client = nbclient.NotebookClient(
        book, timeout=240, kernel_name="python3", resources={"metadata": {"path": kernel_place}}
    )
    client.execute()
    searching, *_ = [cell for cell in book.cells if "run_search" in cell.source]
    outputs = [output.get("data", {}) for output in searching.outputs]
    assert any("application/vnd.jupyter.widget-view+json" in data for data in outputs)  # the table, drawn anew
    assert "hypervolume" in json.dumps(client.widget_state)
    predicted = book.cells[-3].outputs[-1]["data"]["text/plain"]
    assert predicted.count("Prediction(file='digit-") == 2
    assert (kernel_place / "net.onnx").is_file()


@pytest.mark.slow
def test_interrupt_of_a_kernel_stops_after_the_step(kernel_place):
    manager = pytest.importorskip("jupyter_client", reason="notebooks need nbclient and ipykernel").KernelManager()
    manager.start_kernel()
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        settings = {"train.epochs": 200, "shrink.rate": 0.01, "distill.kind": "none"}
        client.execute(
            "import dnad_ray as dr\n"
            f"run = dr.run_search('smoke', out='demo', set={settings})\n"
            "(run.outcome.state, run.outcome.left)"
        )
        out, end = Path("demo").resolve(), time.monotonic() + 120
        while not list(out.glob("trials/t00/history.json")):
            assert time.monotonic() < end
            time.sleep(0.05)
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=60)["content"]
        assert reply["status"] == "ok", reply
        messages = []
        while not (messages and messages[-1].get("execution_state") == "idle"):
            messages.append(client.get_iopub_msg(timeout=60)["content"])
        said = [message["data"]["text/plain"] for message in messages if "text/plain" in message.get("data", {})]
        assert said[-1] == "('interrupted', ('t00',))"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert read_status(out, "t00")["state"] == "interrupted"
    assert list(out.glob("trials/t00/checkpoints/*/manifest.json"))

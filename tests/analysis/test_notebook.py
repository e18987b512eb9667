from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from analysis.frame import load_runs
from dnad_ray.run_folder.writing import write_result

NOTEBOOKS = ("explore", "distillation", "compare")


@pytest.fixture
def notebooks(repository):
    return {file.stem: file for file in (repository / "analysis" / "notebooks").glob("*.ipynb")}


def test_notebooks_have_no_outputs(notebooks):
    assert set(notebooks) == set(NOTEBOOKS)
    for file in notebooks.values():
        for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
            assert cell.get("outputs", []) == []
            assert cell.get("execution_count") is None


@pytest.fixture
def runs(make_run, tmp_path, retrained):
    """Two runs beside the notebooks; networks of the first were trained from scratch."""
    grid = [
        {"seed": seed, "distill.kind": "logits", "distill.temperature": t, "distill.weight": w, "shrink.rate": 0.1}
        for t in (1.0, 4.0)
        for w in (0.5, 1.0)
        for seed in (0, 1)
    ]
    folder = make_run("runs/demo", trials=grid, epochs=3)
    make_run("runs/other", trials=[{"seed": 2}])
    frame = load_runs(folder).drop_duplicates("digest")
    for row in range(3):
        write_result(folder, retrained(frame.iloc[row], accuracy=0.9 + row / 100))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs_in_a_kernel(name, notebooks, runs, repository, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="notebooks need nbclient and ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="notebooks need nbclient and ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.setenv("IPYTHONDIR", str(runs / "ipython"))
    file = Path(shutil.copy(notebooks[name], runs))
    book = nbformat.read(file, as_version=4)
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": runs}}).execute()
    kinds = {kind for cell in book.cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert "application/vnd.plotly.v1+json" in kinds
    if name == "explore":
        assert "application/vnd.jupyter.widget-view+json" in kinds
    if name == "compare":
        assert (runs / "snapshots.csv").is_file()

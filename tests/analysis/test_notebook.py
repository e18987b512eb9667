from __future__ import annotations

import json

import pytest


@pytest.fixture
def cells(repository):
    notebook = json.loads((repository / "analysis" / "notebooks" / "explore.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_notebook_has_no_outputs(cells):
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


def test_notebook_runs_on_a_run_folder(cells, make_run, tmp_path, monkeypatch):
    make_run("runs/demo", trials=[{"seed": 0}, {"seed": 1}])
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert len(names["front"]) > 0

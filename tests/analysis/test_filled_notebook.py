from __future__ import annotations

import ast
import json

import pytest
from click.testing import CliRunner

from analysis.filled_notebook import NOTEBOOKS, write_notebook
from dnad_ray.cli.front import notebook
from dnad_ray.errors import RunFolderError, UserError


def code_of(file):
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def runs_of(file):
    """The value of RUNS, as Python reads it."""
    (line,) = [line for text in code_of(file) for line in text.splitlines() if line.startswith("RUNS = ")]
    return ast.literal_eval(line.removeprefix("RUNS = "))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_write_notebook_names_the_runs(name, make_run, tmp_path):
    folders = [make_run('it\'s "a" \\n run/demo'), make_run("b/other")]
    out = tmp_path / f"{name}.ipynb"
    assert write_notebook(folders, out, name) == out
    assert runs_of(out) == [str(folder) for folder in folders]
    for text in code_of(out):
        compile(text, name, "exec")


def test_write_notebook_never_replaces_a_file(make_run, tmp_path):
    folder, out = make_run(), tmp_path / "mine.ipynb"
    out.write_text("what I wrote")
    with pytest.raises(UserError, match="a new file in an existing folder"):
        write_notebook(folder, out)
    assert out.read_text() == "what I wrote"
    (tmp_path / "link.ipynb").symlink_to("nowhere.ipynb")
    for name in ("link.ipynb", "mine.html", "missing/mine.ipynb"):
        with pytest.raises(UserError, match="a new file in an existing folder"):
            write_notebook(folder, tmp_path / name)
    with pytest.raises(RunFolderError):
        write_notebook(tmp_path / "none", tmp_path / "new.ipynb")
    with pytest.raises(UserError, match="explore, distillation, compare"):
        write_notebook(folder, tmp_path / "new.ipynb", "../explore")


def test_write_notebook_refuses_a_folder_that_hides_our_package(make_run, tmp_path):
    (tmp_path / "analysis").mkdir()
    with pytest.raises(UserError, match="a folder without analysis, which a notebook there would import"):
        write_notebook(make_run(), tmp_path / "new.ipynb")


def test_notebook_command_names_the_file_after_the_run(make_run, tmp_path, monkeypatch):
    folder = make_run()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = CliRunner().invoke(notebook, [str(folder)], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output.startswith("notebook: demo.ipynb; to open it: pip install -e ")
    assert result.output.endswith("then jupyter lab demo.ipynb\n")
    assert runs_of(tmp_path / "here" / "demo.ipynb") == [str(folder)]

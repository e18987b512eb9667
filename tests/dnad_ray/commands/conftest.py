"""A real run for the commands, and how they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dnad_ray.commands.folder import run_folder
from dnad_ray.run_folder.writing import write_parquet
from dnad_ray.search.prepare import PreparedRun, run_search
from dnad_ray.trials.spec import TrialSpec


@pytest.fixture(scope="session")
def searched(tiny, digits, tmp_path_factory) -> Path:
    """A run folder that a real search left."""
    from dnad_ray.watch.board import Board

    config = tiny()
    folder = tmp_path_factory.mktemp("searched") / "run"
    spec = TrialSpec("t00", {"seed": 0}, config)
    with run_folder(config, folder, False):
        run_search(spec, PreparedRun(digits, None), folder, Board([]))
    write_parquet(folder)
    from analysis import front_of, load_runs, to_records

    (folder / "front.json").write_text(json.dumps(to_records(front_of(load_runs(folder)))))
    return folder


@pytest.fixture
def run(searched, tmp_path) -> Path:
    return Path(shutil.copytree(searched, tmp_path / "run"))


@pytest.fixture(scope="session")
def refused():
    """A function that checks that a command was refused in one line with these words."""

    def inner(result, *words, code=2):
        found, out, err = result
        assert (found, err.count("\n")) == (code, 1), result
        assert err.startswith("dnad-ray: error: ")
        assert "Traceback" not in out + err
        for word in words:
            assert word in err, err

    return inner


@pytest.fixture(scope="session")
def one_genotype():
    """A function that returns a genotype file of a run."""

    def inner(run):
        return sorted((run / "genotypes").glob("*.json"))[0]

    return inner

"""`dnad-ray front --new`: a network for a budget between recorded ones, and what is refused."""

from __future__ import annotations

import itertools
import json
import shlex

import pytest

import dnad_ray as dr
from dnad_ray.run_folder.jobs import read_retrained
from dnad_ray.run_folder.reading import read_genotype, read_run
from dnad_ray.storage.files import write_json


@pytest.fixture
def gap(run):
    """Multiply-adds of two neighbouring networks of the run, with the most room between them."""
    macs = sorted({row["macs"] for row in read_run(run).snapshots})
    return max(itertools.pairwise(macs), key=lambda pair: pair[1] - pair[0])


def test_front_new_composes_a_network_within_the_budget_that_retrain_takes(command, run, gap, tmp_path):
    smaller, larger = gap
    budget = larger - 1
    code, out, err = command("front", run, "--under", f"macs={budget}", "--new")
    assert (code, err) == (0, ""), out
    found = json.loads(command("front", run, "--under", f"macs={budget}", "--new", "--json")[1])  # the same again
    assert smaller <= found["macs"] <= budget
    assert f"network {found['digest']}: {found['macs']:,} MACs" in out
    genotype = read_genotype(run, found["digest"])
    known = {row["digest"]: row["macs"] for row in read_run(run).snapshots}
    assert found["digest"] not in known
    small, large = (read_genotype(run, found[name]) for name in ("smaller", "larger"))
    assert (known[found["smaller"]], known[found["larger"]]) == (smaller, larger)
    for ours, less, more in zip(genotype.cells, small.pruned().cells, large.pruned().cells, strict=True):
        for node, fewer, others in zip(ours.nodes, less.nodes, more.nodes, strict=True):
            assert set(fewer) <= set(node) <= {*fewer, *others}
    again = shlex.split(out.rpartition("to train it: ")[2])
    assert again[:2] == ["dnad-ray", "retrain"]
    again[-1] = str(tmp_path / "new")
    quick = ("--recipe", "quick", "--epochs", "1", "--set", "device=cpu", "--no-ray", "--set", "init_channels=4")
    assert command(*again[1:], *quick)[0] == 0
    assert read_retrained(tmp_path / "new")[0][0]["digest"] == found["digest"]
    assert dr.open_run(run).compose(macs=budget).digest == found["digest"]


def test_front_new_refuses_what_it_cannot_compose(command, run, refused):
    most = max(row["macs"] for row in read_run(run).snapshots)
    refused(command("front", run, "--new", "--under", "macs=1"), "--under: got macs=1; allowed: between ")
    refused(command("front", run, "--new", "--under", f"macs={most}"), f"{most:,} macs, what trials recorded")
    refused(command("front", run, "--new", "--under", "error=5%"), "--under: got 'error'; allowed: macs and params")
    refused(command("front", run, "--new"), "--under: got 'nothing'")
    for file in run.glob("trials/*/snapshots/*.json"):  # a version that did not say the channels
        write_json(file, json.loads(file.read_text()) | {"in_channels": 0})
    (run / "snapshots.parquet").unlink()
    refused(command("front", run, "--new", "--under", f"macs={most - 1}"), "records say the channels of its images")
    refused(command("front", run, run, "--new", "--under", "macs=1k"), "one run folder")
    refused(command("front", run, "--new", "--under", "macs=1k", "--objectives", "error,macs"), "--under alone")

"""The short form of `benchmarks/fuzz.py`: a few mutated run folders, and that the script sees what it looks for."""

from __future__ import annotations

import random
import shutil
import time

import click
import pytest

from benchmarks import fuzz


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "whole"
    folder.mkdir()
    fuzz.make(folder)
    return folder


def test_mutated_files_end_in_words(whole):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    entries = [fuzz.case(number, 0, whole) for number in range(40)]
    assert [entry for entry in entries if entry["finding"]] == []
    assert {entry["code"] for entry in entries} == {0, 2}  # some are shown, some refused
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_case_is_that_of_its_seed_and_number(whole):
    first, second, other = (fuzz.case(number, 1, whole) for number in (7, 7, 8))
    assert (first["command"], first["changes"]) == (second["command"], second["changes"])
    assert first["changes"] != other["changes"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda: {}["key"], "KeyError"),
        (lambda: click.echo("Traceback (most recent call last):"), "Traceback"),
        (lambda: time.sleep(60), "more than 0.1 s"),
    ],
)
def test_faults_are_found(fault, words, whole, monkeypatch):
    monkeypatch.setattr(fuzz.cli, "main", fault)
    assert words in fuzz.case(0, 0, whole, seconds=0.1)["finding"]


@pytest.mark.parametrize("seed", range(40))
def test_mutations_stay_in_the_folder(seed, whole, tmp_path):
    work, outside = tmp_path / "w", tmp_path / "outside"
    shutil.copytree(whole, work)
    outside.mkdir()
    files, rng = sorted(path for path in work.rglob("*") if path.is_file()), random.Random(seed)
    for _ in range(20):
        fuzz.mutate(rng.choice(files), files, outside, rng)
    assert list(outside.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "w"]

"""`dnad-ray doctor` names what is there and what is missing, and fails where commands would."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import namedtuple
from importlib.metadata import version

import pytest

import dnad_ray.on_ray.cluster as on_ray
from dnad_ray.errors import RayStartError
from dnad_ray.runtime import installation
from dnad_ray.runtime.installation import EXTRAS
from dnad_ray.text import install_command

if sys.version_info >= (3, 11):
    import tomllib

Usage = namedtuple("Usage", "total used free")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_extras_are_those_of_the_project(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    named = {
        extra: {re.match(r"[\w-]+", entry)[0].removesuffix("-skinny") for entry in entries}
        for extra, entries in project["optional-dependencies"].items()
        if extra != "dev"
    }
    assert {extra: {*modules} for extra, (modules, _) in EXTRAS.items()} == named


def test_doctor_says_what_is_missing_for_what(command, monkeypatch):
    real = installation.find_spec
    monkeypatch.setattr(installation, "find_spec", lambda name: None if name == "optuna" else real(name))
    code, said, err = command("doctor", "--json")
    findings = {entry["name"]: entry for entry in json.loads(said)}
    assert (code, err) == (0, "")  # an extra that is missing is no problem
    assert findings["torch"]["found"] == version("torch")
    assert findings["torchvision beside torch"]["found"] == "can be imported"
    assert findings["extra optuna"]["found"] == "without optuna"
    assert findings["extra optuna"]["advice"] == f"for sweep.sampler: optuna: {install_command('optuna')}"
    assert not findings["extra optuna"]["is_problem"]
    table = command("doctor")[1]
    assert re.search(r"^ - +extra optuna +without optuna", table, re.M)
    assert re.search(rf"^ \+ +ray +{re.escape(version('ray'))}", table, re.M)


def test_doctor_fails_where_commands_would(command, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(4 * 2**30, 4 * 2**30 - 2**20, 2**20))

    def broken():
        raise RuntimeError("operator torchvision::roi_align does not exist\nand more")

    monkeypatch.setattr(installation, "torchvision_models", broken)
    code, said, _ = command("doctor", "--json")
    problems = {entry["name"]: entry for entry in json.loads(said) if entry["is_problem"]}
    assert code == 1
    assert problems["torchvision beside torch"]["found"] == "operator torchvision::roi_align does not exist"
    assert any(name.startswith("disk of ") for name in problems)
    assert problems["/dev/shm"]["found"] == "0.0 of 4.0 GiB free"


def test_doctor_says_why_ray_does_not_start(command, monkeypatch):
    def fails(*_):
        raise RayStartError("Ray on this machine", "no port is free", "one that is")

    monkeypatch.setattr(on_ray, "cluster", fails)
    code, said, _ = command("doctor", "--ray", "--json")
    (last,) = (entry for entry in json.loads(said) if entry["name"] == "start of Ray")
    assert (code, last["is_problem"]) == (1, True)
    assert "no port is free" in last["advice"]


@pytest.mark.ray
def test_doctor_starts_ray(command):
    code, said, err = command("doctor", "--ray")
    assert (code, err) == (0, "")
    assert re.search(r"^ \+ +start of Ray +\d+ s; \d+ CPUs, \d+ GPUs", said, re.M)

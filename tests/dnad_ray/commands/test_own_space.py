"""A space of one's own, from a file that is named on the command line."""

from __future__ import annotations

import json

import pytest
import yaml

from dnad_ray.commands.own_space import read_space
from dnad_ray.errors import ConfigError

YAML = """
operations: [sep_conv_3x3, max_pool_3x3]
num_cells: 4
num_nodes: 2
init_channels: 6
num_stages: 3
sharing: kind
derivation: inputs
inputs_kept: 2
"""
PYTHON = """
from itertools import product

SPACE = {
    "operations": [f"{kind}_conv_{size}" for kind, size in product(["sep", "dil"], ["3x3", "5x5"])],
    "num_cells": 3,
    "num_nodes": 2,
}
"""


def _write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_yaml_and_python_say_the_same_thing(tmp_path):
    found = read_space(str(_write(tmp_path, "mine.yaml", YAML)))
    assert found["space.name"] == "own"
    assert found["space.operations"] == ["sep_conv_3x3", "max_pool_3x3"]
    assert (found["space.sharing"], found["space.inputs_kept"], found["space.init_channels"]) == ("kind", 2, 6)
    code = f"import yaml\nSPACE = yaml.safe_load({YAML!r})\n"
    assert read_space(str(_write(tmp_path, "mine.py", code))) == found


def test_python_file_computes_its_space(tmp_path):
    found = read_space(str(_write(tmp_path, "mine.py", PYTHON)))
    assert found["space.operations"] == ["sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"]


def test_file_may_build_on_a_named_space(tmp_path):
    found = read_space(str(_write(tmp_path, "mine.yml", "name: nas-bench-201\nnum_cells: 6\n")))
    assert (found["space.num_cells"], found["space.num_nodes"], found["space.operations"]) == (6, 3, None)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "", "nas-bench-201, device, own, or a .yaml or .py file"),
        ("a.yaml", "operation: [x]", "key: got 'operation'; allowed: name, operations"),
        ("a.yaml", "- 1", "a mapping"),
        ("a.yaml", "a: [", "YAML that parses"),
        ("a.yaml", "num_cells: many\noperations: [skip_connect]", "space.num_cells"),
        ("a.yaml", "inputs_kept: 5\noperations: [skip_connect]", "space.inputs_kept"),
        ("a.py", "SPACES = {}", "a file that sets SPACE"),
        ("a.py", "SPACE = {1: 2}", "a file that sets SPACE"),
        ("a.py", "SPACE = {", "code that runs \\(SyntaxError"),
        ("a.py", "raise ValueError('no\\nspace')", "code that runs \\(ValueError: no space"),
    ],
)
def test_file_that_is_no_space(tmp_path, name, text, words):
    with pytest.raises(ConfigError, match=words):
        read_space(str(_write(tmp_path, name, text)))


def test_named_space_comes_with_its_sizes_and_operations():
    found = read_space("nas-bench-201")
    sizes = found["space.num_cells"], found["space.num_nodes"], found["space.init_channels"]
    assert (found["space.name"], found["space.operations"], *sizes) == ("nas-bench-201", None, 15, 3, 16)


@pytest.mark.parametrize("name", ["none.yaml", "none.py"])
def test_file_that_is_not_there(tmp_path, name):
    with pytest.raises(ConfigError, match="a readable file"):
        read_space(str(tmp_path / name))


def test_search_in_a_space_of_ones_own_leaves_data_and_no_path(command, tmp_path):
    mine, out = _write(tmp_path, "mine.py", PYTHON), tmp_path / "run"
    options = ["--set", "train.epochs=2", "--set", "distill.kind=none", "--set", "space.init_channels=2"]
    code, _, err = command("search", "smoke", "--space", mine, "--out", out, "--quiet", *options)
    assert (code, err) == (0, "")
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["space"]["operations"] == ["sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"]
    assert "mine.py" not in (out / "config.yaml").read_text()
    mine.unlink()
    genotypes = list((out / "genotypes").glob("*.json"))
    found = {
        edge[0]
        for path in genotypes
        for cell in json.loads(path.read_text())["cells"]
        for n in cell["nodes"]
        for edge in n
    }
    assert found <= set(config["space"]["operations"])
    assert (out / "report.html").is_file()


def test_spaces_are_listed(command):
    code, out, _ = command("spaces")
    assert code == 0
    assert all(name in out for name in ("dnad", "darts-cells", "s1", "nas-bench-201", "own"))

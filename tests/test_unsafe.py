"""No reader that can execute what it reads is called anywhere, under whatever name it was imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SCANNED = ("search_spaces", "dnad_ray", "analysis", "benchmarks", "experiments")

PICKLERS = {"cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "pickle", "shelve", "_pickle", "ray.cloudpickle"}
FORBIDDEN = {
    *("eval", "exec", "compile", "builtins.eval", "builtins.exec", "builtins.compile", "os.system", "os.popen"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all"),
    *("yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "pandas.read_pickle", "pandas.eval", "torch.jit.load"),
    *("torch.hub.load", "torch.package.PackageImporter", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *(
        "ray.tune.Tuner.restore",
        "ray.tune.ExperimentAnalysis",
        "ray.tune.Result.from_path",
        "ray.train.Result.from_path",
    ),
    *("ray.tune.ResultGrid", "ray.tune.analysis.ExperimentAnalysis", "shutil.unpack_archive"),
}
"""Never named, called or not."""

METHODS: dict[str, tuple[str, str] | None] = {
    "extractall": ("filter", "'data'"),
    "extract": ("filter", "'data'"),
    "restore": None,  # of a Tuner, under whatever name
    "from_path": None,
    "read_pickle": None,
    "unsafe_load": None,
    "full_load": None,
}
"""Methods that are called nowhere, or only with this argument, whatever they are methods of."""

ONE_PLACE = {
    "json.load": "search_spaces.json_reader",
    "json.loads": "search_spaces.json_reader",
    "json.JSONDecoder": "search_spaces.json_reader",
    "yaml.safe_load": "dnad_ray.storage.yaml_reader",
    "yaml.safe_load_all": "dnad_ray.storage.yaml_reader",
    "yaml.SafeLoader": "dnad_ray.storage.yaml_reader",
    "yaml.CSafeLoader": "dnad_ray.storage.yaml_reader",
    "pyarrow.parquet.read_table": "dnad_ray.storage.parquet_reader",
    "pyarrow.parquet.ParquetFile": "dnad_ray.storage.parquet_reader",
    "pandas.read_parquet": "dnad_ray.storage.parquet_reader",
    "pandas.read_json": "search_spaces.json_reader",
    "torch.load": "dnad_ray.storage.weights_reader",
    "safetensors.torch.load": "dnad_ray.storage.weights_reader",
    "safetensors.torch.load_file": "dnad_ray.storage.weights_reader",
    "safetensors.safe_open": "dnad_ray.storage.weights_reader",
    "runpy.run_path": "dnad_ray.commands.own_space",  # a file that somebody names, never one of a run
    "runpy.run_module": "dnad_ray.commands.own_space",
}
"""Readers with one room each."""

OWN_DATA = {
    ("analysis.report.page", "json.loads"),  # of a figure that plotly has just written
    ("benchmarks.sweep_overhead", "json.loads"),  # of a run that it has just made
}


def names_of(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            value = dotted(node.value, names)  # another name for a module or a function
            if value and value.partition(".")[0] in {known.partition(".")[0] for known in names.values()}:
                names[node.targets[0].id] = value
    return names


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """The full name of what an expression names, empty where it is no name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        base = dotted(node.value, names)
        return f"{base}.{node.attr}" if base else ""
    if (
        isinstance(node, ast.Call)
        and dotted(node.func, names) in {"getattr", "builtins.getattr"}
        and len(node.args) > 1
    ) and isinstance(node.args[1], ast.Constant):
        return f"{dotted(node.args[0], names)}.{node.args[1].value}"
    return ""


def problems_of(module: str, text: str) -> Iterator[str]:
    tree = ast.parse(text)
    names = names_of(tree)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        for imported in imported_by(node):
            if imported in FORBIDDEN:
                yield f"{module}:{node.lineno} imports {imported}"
            if any(imported == pickler or imported.startswith(f"{pickler}.") for pickler in PICKLERS):
                yield f"{module}:{node.lineno} imports {imported}"
        if isinstance(node, ast.Call):
            yield from problems_of_call(module, node, dotted(node.func, names))
        name = dotted(node, names)
        if name in FORBIDDEN:
            yield f"{module}:{node.lineno} names {name}"
        if name in ONE_PLACE and module != ONE_PLACE[name] and (module, name) not in OWN_DATA:
            yield f"{module}:{node.lineno} names {name}: only {ONE_PLACE[name]} does"
        if name in {"torch.load", "numpy.load"} and id(node) not in calls:
            yield f"{module}:{node.lineno} passes {name} on, with arguments that nobody sees"


def imported_by(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {"__import__", "import_module"}:
        return [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
    return []


def problems_of_call(module: str, node: ast.Call, name: str) -> Iterator[str]:
    where, keywords = f"{module}:{node.lineno}", {word.arg: ast.unparse(word.value) for word in node.keywords}
    if name == "torch.load" and keywords.get("weights_only") != "True":
        yield f"{where} calls torch.load without weights_only=True"
    if keywords.get("allow_pickle", "False") != "False" or (name == "numpy.load" and len(node.args) > 2):
        yield f"{where} allows pickles"
    if keywords.get("shell", "False") != "False":
        yield f"{where} runs a shell"
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if method in METHODS and name not in FORBIDDEN:
        needed = METHODS[method]
        if needed is None or keywords.get(needed[0]) != needed[1]:
            yield f"{where} calls {method}" + ("" if needed is None else f" without {needed[0]}={needed[1]}")


def sources(repository: Path) -> dict[str, str]:
    found = {}
    for folder in SCANNED:
        for file in sorted((repository / folder).rglob("*.py")):
            found[".".join(file.relative_to(repository).with_suffix("").parts)] = file.read_text(encoding="utf-8")
    return found


def test_unsafe_readers_are_called_nowhere(repository: Path) -> None:
    texts = sources(repository)
    assert {"search_spaces.json_reader", "dnad_ray.storage.weights_reader", "analysis.report.page"} < texts.keys()
    assert [problem for module, text in texts.items() for problem in problems_of(module, text)] == []


def test_unsafe_exceptions_are_needed(repository: Path) -> None:
    texts = sources(repository)
    for module, name in OWN_DATA:
        assert name in texts[module]
    for name, module in ONE_PLACE.items():
        assert module in texts, name


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "def f():\n    import cloudpickle as cp",
        "from dill import loads",
        "from ray.cloudpickle import loads",
        "import ray.cloudpickle as p",
        "import importlib\nimportlib.import_module('marshal')",
        "__import__('shelve')",
        "import joblib",
        "import jsonpickle",
        "import torch\ntorch.load(f)",
        "import torch as t\nt.load(f, weights_only=False)",
        "from torch import load\nload(f, weights_only=flag)",
        "from torch import load as read\nread(f)",
        "import torch\nread = torch.load\nread(f)",
        "import torch\nlist(map(torch.load, files))",
        "import torch\ngetattr(torch, 'load')(f)",
        "import torch\nt = torch\nt.load(f)",
        "import torch\ntorch.jit.load(f)",
        "import yaml\nyaml.load(f, Loader=yaml.Loader)",
        "import yaml as y\ny.unsafe_load(f)",
        "from yaml import full_load as read\nread(f)",
        "import yaml\nyaml.safe_load(f)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import numpy as np\nnp.load(f, None, True)",
        "from numpy import load as read\nread(f, allow_pickle=flag)",
        "import pandas as pd\npd.read_pickle(f)",
        "import pandas as pd\npd.read_parquet(f)",
        "eval(text)",
        "exec(text)",
        "import runpy\nrunpy.run_path(name)",
        "run = eval",
        "import builtins as b\nb.exec(text)",
        "compile(text, 'x', 'exec')",
        "import tarfile\ntarfile.open(f).extractall(path)",
        "archive.extractall(path, filter='fully_trusted')",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "from subprocess import Popen as P\nP(text, shell=flag)",
        "import os\nos.system(text)",
        "from ray import tune\ntune.Tuner.restore(path, trainable)",
        "from ray.tune import Tuner as T\nT.restore(path, trainable)",
        "from ray.tune import ExperimentAnalysis",
        "from ray.tune import ExperimentAnalysis as E\nE(path)",
        "from ray.tune import Result\nResult.from_path(path)",
        "import json\njson.loads(text)",
        "from json import load as read\nread(f)",
        "import pyarrow.parquet as pq\npq.read_table(f)",
        "from safetensors.torch import load_file\nload_file(f)",
        "import safetensors.torch\nsafetensors.torch.load(content)",
    ],
)
def test_unsafe_check_notices(text: str) -> None:
    assert list(problems_of("m", text))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("dnad_ray.storage.weights_reader", "import torch\ntorch.load(f, map_location='cpu', weights_only=True)"),
        ("m", "import numpy as np\nnp.load(f, allow_pickle=False)"),
        ("m", "archive.extractall(path, filter='data')"),
        ("m", "import re\nre.compile('x')"),
        ("m", "model.eval()"),
        ("m", "import json\njson.dumps({})"),
        ("m", "import subprocess\nsubprocess.run(['ls'])"),
    ],
)
def test_unsafe_check_accepts(module: str, text: str) -> None:
    assert list(problems_of(module, text)) == []

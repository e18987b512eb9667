"""The rules of the house that no other tool checks: who may import whom, and what a source file looks like.

A checker takes ``{module: source text}`` and returns one sentence per violation, so that the same function runs
over the repository and over the tiny sources that prove that it notices.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGES = ("search_spaces", "dnad_ray", "analysis")
MAX_LINES = 450
MAX_FILES = 20
STANDARD_LIBRARY_ONLY = {
    *("search_spaces", "search_spaces.errors", "search_spaces.formats", "search_spaces.genotype"),
    *("search_spaces.published", "search_spaces.stages", "dnad_ray.text", "dnad_ray.version"),
    *("dnad_ray.run_folder.layout", "dnad_ray.run_folder.metrics", "dnad_ray.run_folder.records"),
    "dnad_ray.storage.digests",
}
RAY_ROOM = "dnad_ray.on_ray"
VISION_MODULE = "dnad_ray.runtime.torchvision_import"
FLOORS = (
    *("errors version", "text telemetry", "storage costs", "config run_folder runtime", "data trials"),
    *("networks training watch", "distill deploy", "search retrain", "on_ray", "commands", "cli"),
)
"""Rooms of ``dnad_ray``, from the ground up: each imports rooms of the floors below it only."""
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms.split()}
ANALYSIS_MAY_IMPORT = ("dnad_ray.errors", "dnad_ray.run_folder", "dnad_ray.storage", "dnad_ray.text")
ANALYSIS_MAY_NOT = {f"dnad_ray.run_folder.{name}" for name in ("checkpoints", "genotypes", "writing")}
ANALYSIS_OF_SPACES = {"search_spaces.errors", "search_spaces.genotype"}
LAYOUT = "dnad_ray.run_folder.layout"
RUN_PARTS = {
    *("trials", "teacher", "retrained", "baselines", "measured", "genotypes", "snapshots", "checkpoints", "ray"),
    *("config.yaml", "run.json", "history.json", "status.json", "result.json", "job.json", "place.json"),
    *("snapshots.parquet", "front.json", "report.html", "live.html", "live.js", "mlflow.db", "tensorboard", ".lock"),
}
HEAVY = {"fvcore", "ray", "torch", "torchvision"}  # what importing analysis must not load
PICKLERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}

Sources = Mapping[str, str]


class Import(NamedTuple):
    """One imported thing: a module, or a name in it."""

    line: int
    module: str
    name: str | None
    in_function: bool
    for_types: bool

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]


def imports_of(text: str) -> Iterator[Import]:
    """Yield every import, wherever it stands; also ``import_module("...")``. A relative one starts with dots."""

    def walk(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, None, in_function, for_types)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module = "." * node.level + (node.module or "")
                yield Import(node.lineno, module, alias.name, in_function, for_types)
        elif isinstance(node, ast.Call) and called(node) in {"__import__", "import_module"} and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield Import(node.lineno, first.value, None, in_function, for_types)
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        types = for_types or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside, types)

    return walk(ast.parse(text), False, False)


def called(node: ast.Call) -> str:
    """Last part of the name of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def target(found: Import, sources: Sources) -> str:
    """The module that an import loads: ``from package import module`` means the module."""
    full = f"{found.module}.{found.name}"
    return full if full in sources else found.module


def is_in(module: str, *packages: str) -> bool:
    """Whether a module is one of these or lies in one of them."""
    return any(module == package or module.startswith(package + ".") for package in packages)


def floor_of(module: str) -> int:
    """The floor of a module of ``dnad_ray``; the package itself is below all, its ``__main__`` above."""
    room = module.split(".")[1] if "." in module else ""
    return len(FLOORS) if room == "__main__" else FLOOR_OF.get(room, -1)


def may_import(module: str, found: Import, sources: Sources) -> bool:
    """Whether the direction ``search_spaces <- dnad_ray, floor by floor`` allows an import of ours."""
    other = target(found, sources)
    if is_in(module, "search_spaces"):
        return found.root == "search_spaces"
    if is_in(module, "analysis"):
        if found.root == "dnad_ray":
            return is_in(other, *ANALYSIS_MAY_IMPORT) and other not in ANALYSIS_MAY_NOT
        return found.root == "analysis" or other in ANALYSIS_OF_SPACES
    if found.root == "analysis":
        return floor_of(module) >= FLOOR_OF["commands"]
    if found.root == "search_spaces":
        return True
    if module == "dnad_ray":  # the public face: it names types, and loads what is used when it is used
        return is_face(module, found) or other == "dnad_ray.version"
    return module.split(".")[1:2] == other.split(".")[1:2] or floor_of(other) < floor_of(module)


def is_face(module: str, found: Import) -> bool:
    """Whether the public face names a type, for which nothing is loaded."""
    return module == "dnad_ray" and found.for_types


def direction(sources: Sources) -> Iterator[str]:
    for module, text in sources.items():
        for found in imports_of(text):
            what = found.module if found.name is None else f"{found.name} from {found.module}"
            if found.module.startswith(".") or found.name == "*":
                yield f"{module}:{found.line} imports {what}: say in full what is imported"
            elif found.root in PACKAGES:
                if not may_import(module, found, sources):
                    yield f"{module}:{found.line} imports {what}: against the import direction"
                if found.in_function and floor_of(module) < FLOOR_OF["commands"]:
                    yield f"{module}:{found.line} imports {what} inside a function"


def third_parties(sources: Sources) -> Iterator[str]:
    for module, text in sources.items():
        for found in imports_of(text):
            root, where = found.root, f"{module}:{found.line} imports {found.module}"
            if root in PACKAGES or root.startswith(".") or root == "":
                continue
            if root == "ray" and not is_in(module, RAY_ROOM):
                yield f"{where}: only {RAY_ROOM} knows Ray"
            if root == "torchvision" and module != VISION_MODULE:
                yield f"{where}: only {VISION_MODULE} knows torchvision"
            if module.startswith("analysis") and root in HEAVY:
                yield f"{where}: analysis never loads it"
            if root not in sys.stdlib_module_names:
                if module in STANDARD_LIBRARY_ONLY:
                    yield f"{where}: this module is standard library only"
                elif module.startswith("search_spaces") and root != "torch":
                    yield f"{where}: a search space knows torch and nothing else"


def light_analysis(sources: Sources) -> Iterator[str]:
    """Follow what importing analysis executes: modules, the packages they lie in, and what those import."""
    loaded_by = {module: "" for module in sources if module.startswith("analysis")}
    queue = list(loaded_by)
    for module in queue:  # grows while it is walked
        for found in imports_of(sources[module]):
            if found.in_function or found.for_types:
                continue
            if found.root in HEAVY:
                yield f"importing analysis loads {found.root}: {module}:{found.line}{loaded_by[module]}"
            parts = target(found, sources).split(".")
            for name in (".".join(parts[: end + 1]) for end in range(len(parts))):
                if name in sources and name not in loaded_by:
                    loaded_by[name] = f", loaded by {module}{loaded_by[module]}"
                    queue.append(name)


def cycles(sources: Sources) -> Iterator[str]:
    edges = {
        module: sorted(
            {target(found, sources) for found in imports_of(text) if not is_face(module, found)} & set(sources)
        )
        for module, text in sources.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> Iterator[str]:
        if module in path:
            yield "import cycle: " + " -> ".join((*path[path.index(module) :], module))
        elif module not in done:
            for other in edges[module]:
                yield from visit(other, (*path, module))
            done.add(module)

    for module in sources:
        yield from visit(module, ())


def shape(sources: Sources) -> Iterator[str]:
    for module, text in sources.items():
        yield from size_and_letters({module: text})
        tree = ast.parse(text)
        if not ast.get_docstring(tree):
            yield f"{module} has no docstring"
        assigned = [
            name.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for name in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(name, ast.Name)
        ]
        if "__all__" not in assigned and not module.endswith("__main__"):
            yield f"{module} has no __all__"


def size_and_letters(sources: Sources) -> Iterator[str]:
    for module, text in sources.items():
        lines = text.splitlines()
        if len(lines) > MAX_LINES:
            yield f"{module} has {len(lines)} lines, at most {MAX_LINES} are allowed"
        yield from (f"{module}:{number} is not ASCII" for number, line in enumerate(lines, 1) if not line.isascii())


def unsafe_loads(sources: Sources) -> Iterator[str]:
    for module, text in sources.items():
        torch_names = {"torch"}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                torch_names |= {alias.asname for alias in node.names if alias.name == "torch" and alias.asname}
        for found in imports_of(text):
            if found.root in PICKLERS:
                yield f"{module}:{found.line} imports {found.module}: no pickles"
            if found.module == "torch" and found.name == "load":
                yield f"{module}:{found.line} imports load from torch: write torch.load"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if keywords.get("allow_pickle", "False") != "False":
                    yield f"{module}:{node.lineno} allows pickles"
                if isinstance(node.func, ast.Attribute) and node.func.attr == "load":
                    is_torch = ast.unparse(node.func.value) in torch_names
                    if is_torch and keywords.get("weights_only") != "True":
                        yield f"{module}:{node.lineno} calls torch.load without weights_only=True"


def paths_of_runs(sources: Sources) -> Iterator[str]:
    """Only the layout writes what the parts of a path in a run folder are called."""
    for module, text in sources.items():
        if module == LAYOUT or module.startswith("search_spaces"):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                parts = [node.right]
            elif isinstance(node, ast.Call) and called(node) in ("glob", "rglob", "joinpath"):
                parts = [*node.args]
            else:
                continue
            texts = [part.value for found in parts for part in ast.walk(found) if isinstance(part, ast.Constant)]
            for name in {part for text in map(str, texts) for part in text.split("/")} & RUN_PARTS:
                yield f"{module}:{node.lineno} writes {name!r} in a path: {LAYOUT} has a function for it"


Check = Callable[[Sources], Iterator[str]]


def read_sources(repository: Path, *folders: str) -> dict[str, str]:
    sources = {}
    for file in sorted(path for folder in folders for path in (repository / folder).rglob("*.py")):
        parts = file.relative_to(repository).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file.read_text(encoding="utf-8")
    return sources


PACKAGE_CHECKS: tuple[Check, ...] = (direction, third_parties, light_analysis, cycles, shape, paths_of_runs)


@pytest.mark.parametrize("check", PACKAGE_CHECKS, ids=lambda c: c.__name__)
def test_house_packages(check: Check, repository: Path) -> None:
    sources = read_sources(repository, *PACKAGES)
    assert {name.partition(".")[0] for name in sources} == set(PACKAGES)
    assert list(check(sources)) == []


@pytest.mark.parametrize("check", [size_and_letters, unsafe_loads], ids=lambda c: c.__name__)
def test_house_all_python_files(check: Check, repository: Path) -> None:
    sources = read_sources(repository, *PACKAGES, "tests", "benchmarks", "experiments")
    assert "tests.test_house" in sources
    assert list(check(sources)) == []


def test_house_rooms_can_be_overlooked(repository: Path) -> None:
    top = {file.name for file in (repository / "dnad_ray").glob("*.py")}
    assert len(top) <= 6, top
    folders = {file.parent for package in PACKAGES for file in (repository / package).rglob("*.py")}
    crowded = {folder: len([*folder.glob("*.py")]) for folder in folders if len([*folder.glob("*.py")]) > MAX_FILES}
    assert crowded == {}


def test_house_every_package_has_init_and_types(repository: Path) -> None:
    folders = {file.parent for package in PACKAGES for file in (repository / package).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []
    assert [package for package in PACKAGES if not (repository / package / "py.typed").is_file()] == []


def test_house_analysis_loads_neither_torch_nor_ray(repository: Path) -> None:
    modules = [name for name in read_sources(repository, "analysis") if not name.endswith("__main__")]
    program = f"import sys, {', '.join(modules)}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "", "")


VIOLATIONS: list[tuple[Check, dict[str, str]]] = [
    (direction, {"search_spaces.ops": "import dnad_ray.config"}),
    (direction, {"search_spaces.ops": "from .genotype import Genotype"}),
    (direction, {"search_spaces.ops": "from search_spaces.genotype import *"}),
    (direction, {"dnad_ray.search.loop": "from dnad_ray import on_ray", "dnad_ray.on_ray": ""}),
    (direction, {"dnad_ray.search.loop": "from dnad_ray.on_ray.trainable import run"}),
    (direction, {"dnad_ray.search.loop": "from dnad_ray.retrain.state import train"}),  # rooms of one floor
    (direction, {"dnad_ray.search.loop": "from importlib import import_module\nimport_module('analysis.frame')"}),
    (direction, {"dnad_ray.search.loop": "def f():\n    from dnad_ray.config import RunConfig"}),
    (direction, {"dnad_ray.on_ray.sweep": "import analysis"}),
    (direction, {"dnad_ray": "from dnad_ray.commands.run import Run"}),  # only to name types
    (direction, {"dnad_ray.on_ray.sweep": "from dnad_ray.cli import main"}),
    (direction, {"dnad_ray.storage.files": "from dnad_ray.run_folder.layout import SAFE_NAME"}),
    (direction, {"dnad_ray.attic": "from dnad_ray.errors import UserError"}),  # a room that is on no floor
    (direction, {"analysis.frame": "from dnad_ray.run_folder.writing import write_status"}),
    (direction, {"analysis.frame": "import dnad_ray.run_folder.checkpoints"}),
    (direction, {"analysis.frame": "from dnad_ray import config", "dnad_ray.config": ""}),
    (direction, {"analysis.frame": "from search_spaces.space import SearchSpace"}),
    (third_parties, {"dnad_ray.cli": "def f():\n    from ray import tune"}),
    (third_parties, {"dnad_ray.data.loading": "from torchvision.datasets import CIFAR10"}),
    (third_parties, {"analysis.frame": "import torch.nn"}),
    (third_parties, {"search_spaces.genotype": "import torch"}),
    (third_parties, {"search_spaces.space": "import pandas as pd"}),
    (
        light_analysis,
        {
            "analysis.frame": "from dnad_ray.run_folder.metrics import METRICS",
            "dnad_ray.run_folder.metrics": "import torch",
        },
    ),
    (
        light_analysis,
        {
            "analysis.frame": "from search_spaces.genotype import Genotype",
            "search_spaces": "from search_spaces.ops import OPS",
            "search_spaces.genotype": "",
            "search_spaces.ops": "import torch",
        },
    ),
    (cycles, {"dnad_ray.a": "import dnad_ray.b", "dnad_ray.b": "from dnad_ray import a"}),
    (cycles, {"p.a": "import p.b", "p.b": "import p.c", "p.c": "def f():\n    from p.a import x"}),
    (cycles, {"p": "from p.a import x", "p.a": "from p import x"}),
    (paths_of_runs, {"dnad_ray.search.trial": "file = folder / 'trials' / name"}),
    (paths_of_runs, {"dnad_ray.search.trial": "file = folder / f'{name}/status.json'"}),
    (paths_of_runs, {"analysis.frame": "files = folder.glob('trials/*')"}),
    (shape, {"m": "__all__ = []"}),
    (shape, {"m": '"""Doc."""'}),
    (shape, {"m": '"""Doc \u00e9."""\n__all__ = []'}),
    (size_and_letters, {"m": "\n" * (MAX_LINES + 1)}),
    (unsafe_loads, {"m": "import torch\ntorch.load(path)"}),
    (unsafe_loads, {"m": "import torch as t\nt.load(path, weights_only=False)"}),
    (unsafe_loads, {"m": "from torch import load"}),
    (unsafe_loads, {"m": "def f():\n    import pickle"}),
    (unsafe_loads, {"m": "from dill import loads"}),
    (unsafe_loads, {"m": "import numpy as np\nnp.load(path, allow_pickle=True)"}),
]


@pytest.mark.parametrize(("check", "sources"), VIOLATIONS)
def test_house_check_notices(check: Check, sources: dict[str, str]) -> None:
    assert len(list(check(sources))) == 1


def test_house_checks_accept_what_is_allowed() -> None:
    good = {
        "search_spaces": '"""Doc."""\n__all__ = []',
        "search_spaces.genotype": '"""Doc."""\nimport json\n__all__ = ["Genotype"]',
        "search_spaces.ops": '"""Doc."""\nimport torch\nfrom search_spaces.genotype import Genotype\n__all__ = []',
        "dnad_ray": '"""Doc."""\nif TYPE_CHECKING:\n    from dnad_ray.cli import f\n__all__ = ["f"]',
        "dnad_ray.run_folder.reading": '"""Doc."""\nfrom search_spaces.genotype import Genotype\n__all__ = []',
        "dnad_ray.run_folder.layout": '"""Doc."""\nfile = run / "trials"\n__all__ = []',
        "dnad_ray.run_folder.jobs": '"""Doc."""\nfrom dnad_ray.run_folder import reading\n__all__ = []',
        "dnad_ray.search": '"""Doc."""\nimport torch\nfrom search_spaces import ops\n__all__ = []',
        "dnad_ray.distill": '"""Doc."""\nimport torch\ntorch.load(path, weights_only=True)\n__all__ = []',
        "dnad_ray.on_ray.trainable": '"""Doc."""\nfrom ray import tune\nfrom dnad_ray import search\n__all__ = []',
        "dnad_ray.on_ray.sweep": '"""Doc."""\nimport ray\nfrom dnad_ray.on_ray.trainable import run\n__all__ = []',
        "dnad_ray.runtime.torchvision_import": '"""Doc."""\ndef f():\n    import torchvision\n__all__ = ["f"]',
        "dnad_ray.cli": '"""Doc."""\ndef f():\n    from dnad_ray import on_ray\n    import analysis\n__all__ = ["f"]',
        "analysis": '"""Doc."""\nimport pandas\nfrom dnad_ray.run_folder.reading import read_run\n__all__ = []',
    }
    checks: tuple[Check, ...] = (*PACKAGE_CHECKS, unsafe_loads)
    assert [problem for check in checks for problem in check(good)] == []

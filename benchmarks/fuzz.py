"""Mutated run folders, models and genotypes: no traceback, no hang, no gigabytes, and nothing outside is touched.

    python benchmarks/fuzz.py --cases 1000
    python benchmarks/fuzz.py --cases 500 --first 3000 --seed 7 --json fuzz.json

A small search is run, one network is trained and measured, and everything is exported. Each case then copies these
files, changes one to three of them (flipped bits, cut or longer files, swapped files, other values and types in JSON
with the right checksum, links and pipes in place of files), and calls one command in this process. A finding is
a traceback, a process that dies, more than 20 seconds of computing, more than 2 GB, or a change of a file outside of
the folder.
Cases are numbered: the seed and the number give the same case again, whatever the others are.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

from dnad_ray import cli
from dnad_ray.config.run import RunConfig, config_to_dict, with_overrides
from dnad_ray.errors import UserError
from dnad_ray.storage.files import write_json
from dnad_ray.storage.yaml_reader import parse_yaml
from search_spaces.json_reader import parse_json

SECONDS, BYTES, CHUNK = 20, 2 * 10**9, 250
SMALL = {
    "space.operations": ["sep_conv_3x3", "max_pool_3x3", "skip_connect"],
    "space.num_cells": 3,
    "space.num_nodes": 2,
    "space.init_channels": 4,
    "evaluation.init_channels": 4,
    "train.epochs": 2,
    "train.warmup_epochs": 1,
    "train.batch_size": 256,
    "train.device": "cpu",
    "shrink.rate": 0.3,
    "shrink.floor.operations": 8,
    "shrink.floor.sparsity": None,
    "distill.kind": "logits",
    "distill.temperature": 2.0,
    "distill.teacher.init_channels": 4,
    "distill.teacher.epochs": 1,
}
COMMANDS: dict[str, tuple[str, ...]] = {
    "front": ("front", "RUN", "--json"),
    "front of two": ("front", "RUN", "INTACT"),
    "report": ("report", "RUN", "--out", "OUT/report.html"),
    "resume": ("search", "CONFIG", "--out", "RUN", "--resume", "--quiet"),
    "measure": ("measure", "RUN", "--repeats", "1"),
    "export": ("export", "RUN", "--format", "safetensors", "--out", "OUT/network.safetensors"),
    "predict job": ("predict", "JOB", "IMAGE"),
    "predict onnx": ("predict", "MODELS/network.onnx", "IMAGE"),
    "predict safetensors": ("predict", "MODELS/network.safetensors", "IMAGE"),
    "count": ("count", "GENOTYPE", "--json"),
    "draw": ("draw", "GENOTYPE", "--out", "OUT/drawing.html"),
}
"""The commands, with words that stand for the files of a case."""

WEIGHTS: dict[str, float] = {
    "resume": 0.4,
    "measure": 0.4,
    "front": 12,
    "front of two": 5,
    "report": 2,
    "predict onnx": 4,
    "predict safetensors": 3,
    "count": 3,
}
NASTY = (
    *(
        None,
        True,
        0,
        -1,
        1,
        2**31,
        2**53 + 1,
        2**62,
        -(2**63),
        0.5,
        -0.0,
        1e-300,
        1e30,
        1e300,
        [],
        {},
        "",
        "x",
        "\x1b[2J",
    ),
    *("../../etc", "/etc/hostname", "\x00", "x" * 5000, ["a"] * 2000, {"a": 1}, "finished", "t00", "NaN", "none"),
)


PRIVATE = '{"state": "of nobody else"}'
"""What a file outside of the folder holds."""


class Hang(BaseException):
    """A case took too long."""


def call(*words: str) -> tuple[int, str]:
    """Call the command line in this process; returns exit code and output."""
    output, before = io.StringIO(), sys.argv
    sys.argv = ["dnad-ray", *words]
    code = 0
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), warnings.catch_warnings():
            warnings.simplefilter("always")
            cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    return code, output.getvalue()


def make(folder: Path) -> None:
    """Make what is mutated: a run with a trained and measured network, its exports, genotypes, and an image."""
    config = with_overrides(RunConfig(), SMALL)
    (folder / "config.yaml").write_text(yaml.safe_dump(config_to_dict(config)))
    Image.new("L", (8, 8), 90).save(folder / "image.png")
    run, models = folder / "demo", folder / "models"
    models.mkdir()
    commands = [
        ("search", str(folder / "config.yaml"), "--out", str(run), "--quiet"),
        ("retrain", str(run), "--recipe", "quick", "--epochs", "1", "--networks", "1", "--no-ray", "--quiet"),
        ("measure", str(run), "--repeats", "1"),
        *(("export", str(run), "--out", str(models / f"network.{suffix}")) for suffix in ("onnx", "safetensors")),
    ]
    for words in commands:
        code, said = call(*words)
        assert code == 0, (words, said)
    shutil.copy(next(run.glob("genotypes/*.json")), folder / "genotype.json")


def flip(content: bytes, rng: random.Random) -> bytes:
    """Flip one to eight bits."""
    changed = bytearray(content or b"\x00")
    for _ in range(rng.choice((1, 1, 1, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def with_other_values(data: Any, rng: random.Random) -> Any:
    """Put another value, or another type, somewhere into plain data; or take something away, or double it."""
    if isinstance(data, dict | list) and data and rng.random() < 0.9:
        key = rng.choice(list(data)) if isinstance(data, dict) else rng.randrange(len(data))
        draw = rng.random()
        if draw < 0.05:
            del data[key]
        elif draw < 0.08 and isinstance(data, list):
            data *= rng.choice((2, 1000))
        else:
            data[key] = with_other_values(data[key], rng)
        return data
    if isinstance(data, int | float) and rng.random() < 0.3:
        return data * rng.choice((-1, 10, 1e6, 1e12)) + rng.choice((0, 1, 0.5))
    return rng.choice(NASTY)


def mutate(file: Path, files: list[Path], outside: Path, rng: random.Random) -> str:
    """Change a file in one of several ways; returns which."""
    if not file.is_file() or file.is_symlink() or outside.parent / "w" not in file.resolve().parents:
        return "nothing"  # an earlier change was of this file, or of a folder above it
    content = file.read_bytes()
    is_plain = file.suffix in (".json", ".yaml")
    ways = ["values"] * 6 * is_plain + ["flip"] * 4 + ["cut", "longer", "swap", "link", "gone", "odd"]
    way = rng.choice(ways)
    if way == "values":
        try:
            data = parse_json(content, "") if file.suffix == ".json" else parse_yaml(content, "")
        except UserError:
            return "nothing"
        with contextlib.suppress(ValueError, OverflowError):  # infinite by now
            changed = with_other_values(data, rng)
            if file.suffix == ".json":
                write_json(file, changed)
            else:
                file.write_text(yaml.safe_dump(changed))
    elif way == "flip":
        file.write_bytes(flip(content, rng))
    elif way == "cut":
        file.write_bytes(content[: rng.randrange(len(content) + 1)])
    elif way == "longer":
        file.write_bytes(content + rng.choice((b"\0", content, b" " * 10**6, rng.randbytes(100))))
    elif way == "swap":
        other = rng.choice(files)
        file.write_bytes(other.read_bytes() if other.is_file() else b"")
    elif way == "link":
        whole = rng.choice([file, file, file.parent])
        target = rng.choice([outside, outside / "secret.json", Path("/dev/zero"), Path("/dev/full"), whole])
        shutil.rmtree(whole) if whole.is_dir() else whole.unlink()
        whole.symlink_to(target)
    else:
        file.unlink(missing_ok=True)
        if way == "odd":
            rng.choice((os.mkfifo, os.mkdir))(file)
    return way


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise :class:`Hang` after so many seconds of computing, or ten times as many in all (the machine may be busy)."""

    def ring(*_: object) -> None:
        raise Hang

    before = {name: signal.signal(name, ring) for name in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 10 * seconds)
    try:
        yield
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        for name, handler in before.items():
            signal.signal(name, handler)


def case(number: int, seed: int, whole: Path, seconds: float = SECONDS) -> dict[str, Any]:
    """Run one case; its ``finding`` is None where all is well."""
    rng = random.Random(f"{seed} {number}")
    name = rng.choices(list(COMMANDS), [WEIGHTS.get(name, 1) for name in COMMANDS])[0]
    with tempfile.TemporaryDirectory(dir=whole.parent) as scratch:
        here = Path(scratch)
        shutil.copytree(whole, here / "w")
        for part in ("out", "outside"):
            (here / part).mkdir()
        (here / "outside" / "secret.json").write_text(PRIVATE)
        base = here / "w"
        words = " ".join(COMMANDS[name])
        root = base / ("genotype.json" if "GENOTYPE" in words else "models" if "MODELS" in words else "demo")
        files = sorted(path for path in root.rglob("*") if path.is_file()) or [root]
        likely = [file for file in files if file.suffix in (".json", ".yaml", ".parquet")] or files
        if name == "resume":  # it has something to do
            status = base / "demo" / "trials" / "t00" / "status.json"
            write_json(status, parse_json(status.read_bytes(), "") | {"state": "running"})
        changes = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            file = rng.choice(rng.choice((files, likely)))
            with contextlib.suppress(OSError, shutil.Error):
                changes.append(f"{mutate(file, files, here / 'outside', rng)} {file.relative_to(base)}")
        job = next((base / "demo" / "retrained").glob("*"), base / "demo") if (base / "demo").is_dir() else base
        stands = {
            "RUN": base / "demo",
            "INTACT": whole / "demo",
            "CONFIG": whole / "config.yaml",
            "JOB": job,
            "GENOTYPE": base / "genotype.json",
            "IMAGE": whole / "image.png",
        }
        arguments = [str(stands.get(word, word)) for word in COMMANDS[name]]
        arguments = [word.replace("OUT/", f"{here}/out/").replace("MODELS/", f"{base}/models/") for word in arguments]
        finding, code, said, began = None, -1, "", time.process_time()
        try:
            with at_most(seconds):
                code, said = call(*arguments)
        except Hang:
            finding = f"more than {seconds} s: " + traceback.format_exc(limit=-4)
        except BaseException:  # noqa: BLE001 - it is what is looked for
            finding = traceback.format_exc(limit=-6)
        if "Traceback" in said:
            finding = said[-2000:]
        outside = sorted(path.name for path in (here / "outside").iterdir())
        if outside != ["secret.json"] or (here / "outside" / "secret.json").read_text() != PRIVATE:
            finding = f"files outside were changed: {outside}"
        if "of nobody else" in said and "GENOTYPE" not in words:  # a user may name a link
            finding = f"a file outside was shown: {said[-500:]}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        entry = {"case": number, "command": name, "changes": changes, "code": code, "finding": finding}
        return entry | {"seconds": round(time.process_time() - began, 3), "peak": peak, "said": said[-300:]}


def chunk(numbers: range, seed: int, whole: Path, report: Callable[[dict[str, Any]], None]) -> int:
    """Run cases in a process of their own; returns how many were begun, as one may end the process."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            with os.fdopen(writer, "w") as stream:
                for number in numbers:
                    stream.write(json.dumps({"begun": number}) + "\n")
                    stream.flush()
                    stream.write(json.dumps(case(number, seed, whole)) + "\n")
                    stream.flush()
        finally:
            os._exit(0)  # also where nobody reads any more
    os.close(writer)
    begun, base, num = None, 0, 0
    with os.fdopen(reader) as stream:
        for line in stream:
            entry = parse_json(line, "case")
            if "begun" in entry:
                begun, num = entry["begun"], num + 1
                continue
            base = base or entry["peak"]
            if entry["peak"] - base > BYTES and entry["finding"] is None:
                entry["finding"], base = f"{(entry['peak'] - base) / 1e9:.1f} GB", entry["peak"]
            report(entry)
            begun = None
    _, status = os.waitpid(child, 0)
    if begun is not None:
        report({"case": begun, "command": "?", "changes": [], "finding": f"the process died ({status})", "seconds": 0})
    return num


def main() -> None:
    """Run cases and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=7.5, help="begin no further chunk after that")
    parser.add_argument("--keep", type=Path, help="the files that are mutated, made there once")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    entries: list[dict[str, Any]] = []

    def report(entry: dict[str, Any]) -> None:
        entries.append(entry)
        if entry["finding"]:
            print(f"case {entry['case']}: {entry['command']}, {'; '.join(entry['changes'])}\n{entry['finding']}\n")
            sys.stdout.flush()

    with tempfile.TemporaryDirectory() as scratch:
        whole = arguments.keep or Path(scratch) / "whole"
        if not whole.is_dir():
            whole.mkdir(parents=True)
            make(whole)
        end, number = time.monotonic() + 60 * arguments.minutes, arguments.first
        while number < arguments.first + arguments.cases and time.monotonic() < end:
            last = min(number + CHUNK, arguments.first + arguments.cases)
            number += chunk(range(number, last), arguments.seed, whole, report)
    findings = [entry for entry in entries if entry["finding"]]
    slow = max((entry["seconds"] for entry in entries), default=0)
    codes = Counter(f"{entry['command']} {entry.get('code')}" for entry in entries)
    print(f"cases {arguments.first} to {number - 1}: {len(findings)} findings; slowest {slow} s; {dict(codes)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(entries, indent=1))


if __name__ == "__main__":
    main()

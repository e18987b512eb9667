"""What our exports become in the field's tools, and what counters of FLOPs say of our networks: docs/formats.md.

    python benchmarks/formats.py --images FOLDER --work build/formats --page docs/formats.md

Each tool has a virtual environment of its own in the work folder, with the versions named here; the project's own is
not touched. It is removed when the tool's row is done. A row that is there already is not measured again, so an
interrupted run goes on where it was; `--only TOOL ...` makes these rows anew. The page's tables are rewritten between
their marks, its sentences stay. On a machine without a GPU, `UV_FIND_LINKS` or `UV_INDEX` can name CPU builds of torch.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.format_tools import MARK
from search_spaces.json_reader import parse_json

UV = "uv==0.13.9"
ONNX = ("numpy==2.4.6", "onnx==1.23.2", "onnxruntime==1.32.0")
TORCH = ("numpy==2.4.6", "torch==2.13.0", "safetensors==0.8.0")
LIMIT_S = 900
SLOW = ("darts_v2",)


class Tool(NamedTuple):
    """A row: its name in the table, the export that it reads, the packages of its environment.

    A slow one takes minutes for each network, and is tried on those of `SLOW`.
    """

    title: str
    reads: str
    packages: tuple[str, ...]
    slow: bool = False


TOOLS: dict[str, Tool] = {
    "onnxruntime-float32": Tool("onnxruntime 1.32.0", "onnx", ONNX),
    "onnxruntime-float16": Tool("onnxruntime 1.32.0, float16", "onnx", (*ONNX, "sympy==1.14.0")),
    "onnxruntime-float16-keep": Tool("onnxruntime 1.32.0, float16, `keep_io_types`", "onnx", (*ONNX, "sympy==1.14.0")),
    "onnxruntime-int8-dynamic": Tool("onnxruntime 1.32.0, int8 dynamic", "onnx", (*ONNX, "sympy==1.14.0")),
    "onnxruntime-int8-static": Tool("onnxruntime 1.32.0, int8 static", "onnx", (*ONNX, "sympy==1.14.0")),
    "onnxslim": Tool("onnxslim 0.1.98", "onnx", (*ONNX, "onnxslim==0.1.98")),
    "onnxsim": Tool("onnxsim 0.8.1", "onnx", (*ONNX, "onnxsim==0.8.1")),
    "openvino": Tool("OpenVINO 2026.4.1", "onnx", ("numpy==2.4.6", "openvino==2026.4.1")),
    "openvino-saved": Tool(
        "OpenVINO 2026.4.1, `save_model`, read again", "onnx", ("numpy==2.4.6", "openvino==2026.4.1")
    ),
    "onnx2torch": Tool(
        "onnx2torch 1.5.15", "onnx", (*TORCH, "torchvision==0.28.0", "onnx==1.23.2", "onnx2torch==1.5.15")
    ),
    "opencv": Tool("OpenCV 5.0.0.93, `dnn`", "onnx", ("numpy==2.4.6", "opencv-python-headless==5.0.0.93")),
    "tract": Tool("tract 0.23.9", "onnx", ("numpy==2.4.6", "tract==0.23.9")),
    "pnnx-onnx": Tool(
        "pnnx 20261020 to ncnn 1.0.20261020", "onnx", (*TORCH, "pnnx==20261020", "ncnn==1.0.20261020"), True
    ),
    "pnnx-module": Tool(
        "pnnx 20261020 to ncnn 1.0.20261020, traced", "python", (*TORCH, "pnnx==20261020", "ncnn==1.0.20261020"), True
    ),
    "executorch": Tool("ExecuTorch 1.5.1, XNNPACK", "torch-export", (*TORCH, "executorch==1.5.1"), True),
    "coreml": Tool("coremltools 9.0", "torch-export", (*TORCH, "coremltools==9.0", "scikit-learn==1.9.1"), True),
}
"""Tool -> its row; the functions of these names are in `format_tools.py`."""

COUNTERS: dict[str, Tool] = {
    "fvcore": Tool("fvcore 0.1.5.post20221221", "python", (*TORCH, "fvcore==0.1.5.post20221221")),
    "ptflops": Tool("ptflops 0.7.5, `pytorch`", "python", (*TORCH, "ptflops==0.7.5")),
    "thop": Tool("thop 0.1.1.post2209072238", "python", (*TORCH, "thop==0.1.1.post2209072238")),
    "ultralytics-thop": Tool("ultralytics-thop 2.2.3", "python", (*TORCH, "ultralytics-thop==2.2.3")),
    "torchinfo": Tool("torchinfo 1.8.0", "python", (*TORCH, "torchinfo==1.8.0")),
    "calflops": Tool("calflops 0.3.2", "python", (*TORCH, "calflops==0.3.2", "transformers==5.0.0")),
    "torch-flop-counter": Tool("torch 2.13.0, `FlopCounterMode`", "python", TORCH),
    "deepspeed": Tool("deepspeed 0.19.8", "python", (*TORCH, "deepspeed==0.19.8", "setuptools==80.9.0")),
}
"""Counter of FLOPs -> its row."""

Outcomes = Mapping[str, Mapping[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="image folder to train the networks on")
    parser.add_argument("--work", type=Path, required=True, help="folder of networks, environments and rows")
    parser.add_argument("--page", type=Path, help="page whose tables are rewritten")
    parser.add_argument("--only", nargs="+", choices=[*TOOLS, *COUNTERS], default=[], help="rows that are made anew")
    arguments = parser.parse_args()
    from benchmarks.format_networks import NETWORKS, make_networks

    work = arguments.work.resolve()
    for name in ("networks", "rows"):
        (work / name).mkdir(parents=True, exist_ok=True)
    make_networks(arguments.images, work / "networks")
    rows = {}
    for key, tool in sorted({**TOOLS, **COUNTERS}.items(), key=lambda item: item[1].slow):
        file = work / "rows" / f"{key}.json"
        row = parse_json(file.read_bytes(), file.name) if file.exists() else None
        if row is None or row["packages"] != list(tool.packages) or key in arguments.only:
            row = {"packages": tool.packages, **measured(key, tool, SLOW if tool.slow else [*NETWORKS], work)}
            file.write_text(json.dumps(row, indent=1) + "\n")
        rows[key] = row
        print(f"{key}: {row.get('failed') or row['networks']}", flush=True)
    facts = {name: parse_json((work / "networks" / f"{name}.costs.json").read_bytes(), name) for name in NETWORKS}
    if arguments.page:
        page = arguments.page.read_text(encoding="utf-8")
        page = between(page, "tools", tools_table(rows, facts))
        page = between(page, "counters", counters_table(rows, facts))
        arguments.page.write_text(page, encoding="utf-8")


# -- runs --------------------------------------------------------------------------------------------------------


def measured(key: str, tool: Tool, names: Sequence[str], work: Path) -> dict[str, Any]:
    """Install a tool, try it on every network, and remove it."""
    installer = work / "installer"
    if not (installer / "bin" / "uv").exists():
        subprocess.run([sys.executable, "-m", "venv", str(installer)], check=True)
        subprocess.run([str(installer / "bin" / "python"), "-m", "pip", "install", "--quiet", UV], check=True)
    uv, venv = str(installer / "bin" / "uv"), work / "environments" / key
    try:
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)], check=True)
        python = str(venv / "bin" / "python")
        install = [uv, "pip", "install", "--quiet", "--python", python, *tool.packages]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"failed": f"cannot be installed: {told(done.stderr)}", "networks": {}}
        return {"networks": tried(python, key, work / "networks", names)}
    finally:
        shutil.rmtree(venv, ignore_errors=True)


def tried(python: str, key: str, networks: Path, names: Sequence[str]) -> dict[str, Any]:
    """Run one tool in a process of its own, which may end as it likes."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    script = Path(__file__).with_name("format_tools.py")
    with tempfile.TemporaryDirectory() as scratch, Path(scratch, "out").open("w+") as out:
        command = [python, str(script), key, str(networks), scratch, *names]
        try:
            done = subprocess.run(
                command, stdout=out, stderr=subprocess.PIPE, text=True, check=False, timeout=LIMIT_S, env=environment
            )
            why = f"exit code {done.returncode}: {told(done.stderr)}"
            if done.returncode < 0:
                why = f"its process was ended by {signal.Signals(-done.returncode).name}"
        except subprocess.TimeoutExpired:
            why = f"not done after {LIMIT_S} s"
        out.seek(0)
        lines = [line.removeprefix(MARK) for line in out if line.startswith(MARK)]
    found = {name: {"read": False, "error": why} for name in names}
    for line in lines:
        found.update(parse_json(line.encode(), key))
    for outcome in found.values():
        if "error" in outcome:
            outcome["error"] = told(outcome["error"])
    return found


def told(text: str) -> str:
    """The first words of a message, without addresses and paths of this machine."""
    words = re.sub(r"\w+://\S+|(?<![\w.])/[\w.+-]+(?:/[\w.+-]+)+", "...", text)
    return " ".join(words.split()).replace("|", "/")[:160]


# -- the page ----------------------------------------------------------------------------------------------------


def between(page: str, name: str, lines: Sequence[str]) -> str:
    """Replace what stands between a table's two marks."""
    begin, end = f"<!-- {name}: written by benchmarks/formats.py -->\n", f"<!-- end of {name} -->"
    head, _, rest = page.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        sys.exit(f"the page has no marks of {name!r}")
    return "\n".join([head + begin, *lines, "", end]) + tail


def tools_table(rows: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    lines = [
        "| Tool | Export | Readable | Largest difference | Same class | Metadata | Remarks |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, tool in TOOLS.items():
        cells = [tool.title, tool.reads, *tool_cells(rows[key], facts)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def tool_cells(row: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Readable, largest difference, same class, metadata, remarks."""
    networks: Outcomes = row["networks"]
    if not networks:
        return ["no", "-", "-", "-", row["failed"]]
    read = {name: found for name, found in networks.items() if found["read"]}
    differences = [found["difference"] for found in read.values() if "difference" in found]
    agree = [found["agree"] for found in read.values() if "agree" in found]
    remarks = [f"{name}: {found['error']}" for name, found in networks.items() if not found["read"]]
    return [
        f"{len(read)} of {len(networks)}",
        f"{max(differences):.1e}" if differences else "-",
        f"{min(agree):.1%}" if agree else "-",
        metadata(read, facts),
        "; ".join([*merged(read), *merged_errors(remarks)]) or "-",
    ]


def metadata(read: Outcomes, facts: Mapping[str, Any]) -> str:
    """Whether a tool's result still has the keys of our metadata."""
    kept = set()
    for name, found in read.items():
        if found["keys"] is None:
            kept.add("no place for it")
        else:
            share = len(set(found["keys"]) & set(facts[name]["metadata"]))
            kept.add("kept" if share == len(facts[name]["metadata"]) else "part" if share else "lost")
    return ", ".join(sorted(kept)) or "-"


def merged(read: Outcomes) -> list[str]:
    """Remarks that all networks share once; others as those of the first and how they range."""
    columns = zip(*(found["remarks"] for found in read.values()), strict=True) if read else ()
    return [" / ".join(dict.fromkeys(column)) for column in columns]


def merged_errors(remarks: Sequence[str]) -> list[str]:
    """Errors that are the same but for the network once."""
    texts: dict[str, list[str]] = {}
    for remark in remarks:
        name, _, text = remark.partition(": ")
        texts.setdefault(text, []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in texts.items()]


def counters_table(rows: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    lines = [f"| Counter | {' | '.join(facts)} |", f"| --- |{' --- |' * len(facts)}"]
    for title, part in (("ours, `macs`", "macs"), ("ours, `macs_conv_linear`", "macs_conv_linear")):
        ours = (f"{fact['cost'][part]:,}" for fact in facts.values())
        lines.append(f"| {title} | {' | '.join(ours)} |")
    for key, tool in COUNTERS.items():
        row = rows[key]
        if not row["networks"]:
            lines.append(f"| {tool.title} | {row['failed']} |{' |' * (len(facts) - 1)}")
            continue
        cells = [count_cell(row["networks"][name], facts[name]["cost"]["macs"]) for name in facts]
        lines.append(f"| {tool.title} | {' | '.join(cells)} |")
    return lines


def count_cell(found: Mapping[str, Any], ours: int) -> str:
    if not found["read"]:
        return found["error"]
    return f"{found['macs']:,.0f} ({found['macs'] / ours - 1:+.1%})"


if __name__ == "__main__":
    main()

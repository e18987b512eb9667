"""Runs in a foreign virtual environment, without our package: what a tool makes of exported networks.

    python format_tools.py TOOL FOLDER SCRATCH NAME ...

The tool's function prepares the network and returns a function from pixels (N, C, H, W) to logits (N, num_classes),
the keys of our metadata that it still has (None where the tool has no place for any), and remarks. Printed: one line
of JSON for each network. `formats.py` makes the environments and calls this.
"""

from __future__ import annotations

import importlib
import json
import operator
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MARK = "outcome: "
"""Begins the lines that are ours; tools print others."""


class Network(NamedTuple):
    """One exported network and a folder for what tools write."""

    folder: Path
    name: str
    scratch: Path

    def file(self, suffix: str) -> Path:
        return self.folder / f"{self.name}{suffix}"

    def array(self, key: str) -> np.ndarray:
        return np.load(self.file(".npz"))[key]

    @property
    def side(self) -> int:
        return self.array("pixels").shape[-1]


class Result(NamedTuple):
    """What a tool made of it; `keys` None: the tool's file has no place for metadata."""

    predict: Callable[[np.ndarray], np.ndarray] | None
    keys: Iterable[str] | None
    remarks: tuple[str, ...] = ()


def module_of(network: Network) -> Any:
    """The module that our export `python` wrote, with its weights."""
    sys.path.insert(0, str(network.folder))
    return importlib.import_module(network.name).load(str(network.file(".safetensors")))


def by_torch(module: Any) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    def predict(pixels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(pixels)).numpy()

    return predict


def keys_of(model: Any) -> list[str]:
    return [entry.key for entry in model.metadata_props]


# -- onnxruntime and tools that rewrite ONNX ---------------------------------------------------------------------


def by_runtime(model: Any, remarks: tuple[str, ...] = (), kind: Any = np.float32) -> Result:
    """Run a model, given as a file or as a message, by onnxruntime."""
    import onnx
    import onnxruntime

    content = model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    nodes = len(onnx.load_from_string(content).graph.node)
    keys = session.get_modelmeta().custom_metadata_map
    name = session.get_inputs()[0].name
    return Result(lambda pixels: session.run(None, {name: pixels.astype(kind)})[0], keys, (f"{nodes} nodes", *remarks))


def onnxruntime_float32(network: Network) -> Result:
    return by_runtime(network.file(".onnx"))


def float16(network: Network, keep: bool) -> Any:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(onnx.load(network.file(".onnx")), keep_io_types=keep)


def onnxruntime_float16(network: Network) -> Result:
    return by_runtime(float16(network, False), ("input and output become float16",), np.float16)


def onnxruntime_float16_keep(network: Network) -> Result:
    return by_runtime(float16(network, True), ("input and output stay float32",))


def onnxruntime_int8_dynamic(network: Network) -> Result:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    out = network.scratch / "dynamic.onnx"
    quantize_dynamic(network.file(".onnx"), out, weight_type=QuantType.QUInt8)
    return by_runtime(out, ("8-bit weights, unsigned",))


def onnxruntime_int8_static(network: Network) -> Result:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(np.split(network.array("calibration"), 10))

        def get_next(self) -> Any:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    ready, out = network.scratch / "ready.onnx", network.scratch / "static.onnx"
    quant_pre_process(network.file(".onnx"), ready)
    quantize_static(ready, out, Reader(), per_channel=True)
    return by_runtime(out, ("QDQ, per channel, 100 images",))


def onnxslim(network: Network) -> Result:
    import onnxslim as tool

    return by_runtime(tool.slim(str(network.file(".onnx"))))


def onnxsim(network: Network) -> Result:
    import onnx
    import onnxsim as tool

    model, checked = tool.simplify(onnx.load(network.file(".onnx")))
    return by_runtime(model, () if checked else ("its own check failed",))


# -- other readers of ONNX ---------------------------------------------------------------------------------------


def by_openvino(model: Any, keys: Iterable[str]) -> Result:
    import openvino

    # Processors with bfloat16 would use it unasked; the row is about the reader.
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return Result(lambda pixels: compiled(pixels)[0], keys)


def openvino_keys(model: Any) -> list[str]:
    info = model.get_rt_info()
    found = list(info)
    for key in found:
        value = info[key].value if hasattr(info[key], "value") else info[key]
        if isinstance(value, dict):
            found = [*found, *value]
    return found


def openvino_read(network: Network) -> Result:
    import openvino

    model = openvino.Core().read_model(network.file(".onnx"))
    return by_openvino(model, openvino_keys(model))


def openvino_saved(network: Network) -> Result:
    import openvino

    openvino.save_model(openvino.convert_model(network.file(".onnx")), network.scratch / "model.xml")
    model = openvino.Core().read_model(network.scratch / "model.xml")
    return by_openvino(model, openvino_keys(model))._replace(remarks=("save_model stores float16 weights",))


def onnx2torch(network: Network) -> Result:
    import onnx
    import torch

    # The package index has torchvision for CUDA only, which looks for operators that torch for CPUs does not have.
    library = torch.library.Library("torchvision", "FRAGMENT")  # the names last as long as this object
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float limit) -> Tensor")
    import onnx2torch as tool

    return Result(by_torch(tool.convert(onnx.load(network.file(".onnx"))).eval()), None)


def opencv(network: Network) -> Result:
    import cv2

    net = cv2.dnn.readNetFromONNX(str(network.file(".onnx")))

    def predict(pixels: np.ndarray) -> np.ndarray:
        net.setInput(pixels)
        return net.forward()

    return Result(predict, None)


def tract(network: Network) -> Result:
    import tract as tool

    model = tool.onnx().load(str(network.file(".onnx"))).into_model().into_runnable()
    keys = [key.removeprefix("onnx.metadata_props.") for key in model.property_keys()]
    return Result(lambda pixels: model.run([pixels])[0].to_numpy(), keys)


# -- pnnx and ncnn -----------------------------------------------------------------------------------------------


def by_pnnx(network: Network, file: Path) -> Result:
    """Convert by pnnx, run what it wrote for ncnn, and try its Python file."""
    import ncnn
    import pnnx

    tool = Path(pnnx.__file__).parent / "pnnx"
    shape = f"[1,{','.join(str(side) for side in network.array('pixels').shape[1:])}]f32"
    command = [str(tool), file.name, f"inputshape={shape}", "fp16=0"]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=False)
    param, weights = file.with_suffix(".ncnn.param"), file.with_suffix(".ncnn.bin")
    if not param.exists():
        raise ValueError(f"pnnx wrote no network for ncnn, exit code {done.returncode}")
    try:
        importlib.import_module("ast").parse(file.with_name(f"{file.stem}_pnnx.py").read_text())
        python = "its Python file parses"
    except SyntaxError:
        python = "its Python file is a syntax error"
    output_of = operator.methodcaller("extract", "out0")  # ncnn's word for a forward pass; nothing is unpacked
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    net.load_param(str(param))
    net.load_model(str(weights))

    def predict(pixels: np.ndarray) -> np.ndarray:
        rows = []
        for image in pixels:
            extractor = net.create_extractor()
            extractor.input("in0", ncnn.Mat(np.ascontiguousarray(image)).clone())
            rows.append(np.array(output_of(extractor)[1]).reshape(-1))
        return np.stack(rows)

    return Result(predict, None, (python,))


def pnnx_onnx(network: Network) -> Result:
    file = network.scratch / network.file(".onnx").name
    file.write_bytes(network.file(".onnx").read_bytes())
    return by_pnnx(network, file)


def pnnx_module(network: Network) -> Result:
    import torch

    file = network.scratch / f"{network.name}.pt"
    torch.jit.trace(module_of(network), torch.from_numpy(network.array("pixels")[:1])).save(str(file))
    return by_pnnx(network, file)


# -- readers of torch.export -------------------------------------------------------------------------------------


def executorch(network: Network) -> Result:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.devtools.backend_debug import get_delegation_info
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    program = torch.export.load(network.file(".pt2"))
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    table = get_delegation_info(edge.exported_program().graph_module).get_operator_delegation_dataframe()
    outside = {
        str(op): int(count)
        for op, count in zip(table["op_type"], table["occurrences_in_non_delegated_graphs"], strict=True)
        if count and op not in {"Total", "getitem"}
    }
    delegates = get_delegation_info(edge.exported_program().graph_module).num_delegated_subgraphs
    file = network.scratch / "model.pte"
    file.write_bytes(edge.to_executorch().buffer)
    method = Runtime.get().load_program(file).load_method("forward")
    listed = ", ".join(f"{count} {op}" for op, count in sorted(outside.items())) or "nothing"

    def predict(pixels: np.ndarray) -> np.ndarray:
        return np.concatenate([method.execute([torch.from_numpy(p[None])])[0].numpy() for p in pixels])

    return Result(predict, None, (f"{delegates} delegates; outside them {listed}",))


def coreml(network: Network) -> Result:
    import coremltools
    import torch

    program = torch.export.load(network.file(".pt2")).run_decompositions({})
    model = coremltools.convert(program, minimum_deployment_target=coremltools.target.iOS17)
    model.save(str(network.scratch / "model.mlpackage"))
    again = coremltools.models.MLModel(str(network.scratch / "model.mlpackage"), skip_model_load=True)
    return Result(None, list(again.user_defined_metadata), ("converted and saved; runs on macOS only",))


TOOLS: dict[str, Callable[[Network], Result]] = {
    "onnxruntime-float32": onnxruntime_float32,
    "onnxruntime-float16": onnxruntime_float16,
    "onnxruntime-float16-keep": onnxruntime_float16_keep,
    "onnxruntime-int8-dynamic": onnxruntime_int8_dynamic,
    "onnxruntime-int8-static": onnxruntime_int8_static,
    "onnxslim": onnxslim,
    "onnxsim": onnxsim,
    "openvino": openvino_read,
    "openvino-saved": openvino_saved,
    "onnx2torch": onnx2torch,
    "opencv": opencv,
    "tract": tract,
    "pnnx-onnx": pnnx_onnx,
    "pnnx-module": pnnx_module,
    "executorch": executorch,
    "coreml": coreml,
}


# -- counters of FLOPs -------------------------------------------------------------------------------------------


def counted(network: Network) -> tuple[Any, Any]:
    """The module in evaluation mode, and one image."""
    import torch

    return module_of(network), torch.from_numpy(network.array("pixels")[:1])


def fvcore(network: Network) -> float:
    from fvcore.nn import FlopCountAnalysis

    return FlopCountAnalysis(*counted(network)).unsupported_ops_warnings(False).total()


def ptflops(network: Network) -> float:
    from ptflops import get_model_complexity_info

    module, image = counted(network)
    options = {"as_strings": False, "print_per_layer_stat": False, "backend": "pytorch"}
    return get_model_complexity_info(module, tuple(image.shape[1:]), **options)[0]


def thop(network: Network) -> float:
    from thop import profile

    module, image = counted(network)
    return profile(module, inputs=(image,), verbose=False)[0]


def torchinfo(network: Network) -> float:
    from torchinfo import summary

    module, image = counted(network)
    return summary(module, input_data=image, verbose=0).total_mult_adds


def calflops(network: Network) -> float:
    from calflops import calculate_flops

    module, image = counted(network)
    options = {"output_as_string": False, "print_results": False, "print_detailed": False}
    return calculate_flops(module, input_shape=tuple(image.shape), **options)[1]


def torch_flop_counter(network: Network) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    module, image = counted(network)
    with FlopCounterMode(display=False) as counter:
        module(image)
    return counter.get_total_flops() / 2


def deepspeed(network: Network) -> float:
    from deepspeed.profiling.flops_profiler import get_model_profile

    module, image = counted(network)
    options = {"as_string": False, "print_profile": False, "detailed": False}
    return get_model_profile(module, input_shape=tuple(image.shape), **options)[1]


COUNTERS: dict[str, Callable[[Network], float]] = {
    "fvcore": fvcore,
    "ptflops": ptflops,
    "thop": thop,
    "ultralytics-thop": thop,
    "torchinfo": torchinfo,
    "calflops": calflops,
    "torch-flop-counter": torch_flop_counter,
    "deepspeed": deepspeed,
}
"""Name -> function that returns multiply-adds for one image; half the FLOPs where a counter gives only those."""


def outcome_of(tool: str, network: Network) -> dict[str, Any]:
    if tool in COUNTERS:
        return {"read": True, "macs": float(COUNTERS[tool](network))}
    result = TOOLS[tool](network)
    keys = None if result.keys is None else sorted(result.keys)
    found: dict[str, Any] = {"read": True, "keys": keys, "remarks": list(result.remarks)}
    if result.predict is not None:
        logits, expected = np.asarray(result.predict(network.array("pixels")), np.float32), network.array("logits")
        if logits.shape != expected.shape:
            raise ValueError(f"logits have shape {logits.shape}, not {expected.shape}")
        found["difference"] = float(np.abs(logits - expected).max() / np.abs(expected).max())
        found["agree"] = float((logits.argmax(1) == expected.argmax(1)).mean())
    return found


def main() -> None:
    tool, folder, scratch, *names = sys.argv[1:]
    for name in names:
        try:
            found = outcome_of(tool, Network(Path(folder), name, Path(scratch)))
        except Exception as error:  # noqa: BLE001 - whatever a tool raises is what the table is about
            found = {"read": False, "error": f"{type(error).__name__}: {error}"}
        print(f"{MARK}{json.dumps({name: found})}", flush=True)


if __name__ == "__main__":
    main()

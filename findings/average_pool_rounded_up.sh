#!/usr/bin/env bash
# Average pools that round up: OpenVINO and ncnn divide otherwise than PyTorch and onnxruntime.
#
# One expects: an exported average pool gives the numbers of the network, up to rounding, wherever it runs.
# What happens: with `ceil_mode=True` and `count_include_pad=True` (PyTorch's default) the last window hangs over the padded
#   image. PyTorch and onnxruntime divide its sum by the pixels inside the padded image, OpenVINO and ncnn by others. ncnn
#   does so without any padding too, where an odd side meets a pool 2x2. With `count_include_pad=False` all of them agree.
# Why it matters: pools that round up are in the shortcuts of ResNet-D, in NAS-Bench-201's residual blocks and in Inception. Sides
#   become odd as soon as images are not a power of two. Only the last row and column of each map are wrong, so the accuracy
#   falls a little, and nothing says why.
# Seen with: OpenVINO 2026.4.1, pnnx 20261020, ncnn 1.0.20261020, onnx 1.23.2, onnxruntime 1.32.0, torch 2.13.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
"$work/venv/bin/python" -m pip install --quiet openvino==2026.4.1 pnnx==20261020 ncnn==1.0.20261020

cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import subprocess
from importlib.metadata import version
from pathlib import Path

import ncnn
import numpy as np
import onnx
import onnxruntime
import openvino
import pnnx
import torch
from onnx import TensorProto, helper

print(*(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "openvino", "pnnx", "ncnn")))


def by_onnx(kernel, stride, pad, inside, image, shape):
    options = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "ceil_mode": 1}
    node = helper.make_node("AveragePool", ["x"], ["y"], count_include_pad=int(inside), **options)
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, image.shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)]
    model = helper.make_model(
        helper.make_graph([node], "pool", values, outputs), opset_imports=[helper.make_opsetid("", 19)], ir_version=10
    )
    onnx.checker.check_model(model)
    onnx.save(model, "pool.onnx")
    session = onnxruntime.InferenceSession("pool.onnx", providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model("pool.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return session.run(None, {"x": image})[0], compiled(image)[0]


def by_ncnn(pool, image):
    torch.jit.trace(pool, torch.from_numpy(image)).save("pool.pt")
    side = image.shape[-1]
    tool = str(Path(pnnx.__file__).parent / "pnnx")
    subprocess.run([tool, "pool.pt", f"inputshape=[1,1,{side},{side}]f32"], check=True, capture_output=True)
    net = ncnn.Net()
    net.load_param("pool.ncnn.param")
    net.load_model("pool.ncnn.bin")
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(image[0]).clone())
    return np.array(extractor.extract("out0")[1])[None]


found = {}
for kernel, stride, pad, side in ((3, 2, 1, 8), (2, 2, 0, 7)):
    image = np.arange(1, side * side + 1, dtype=np.float32).reshape(1, 1, side, side)
    for inside in (True, False):
        pool = torch.nn.AvgPool2d(kernel, stride, pad, ceil_mode=True, count_include_pad=inside)
        expected = pool(torch.from_numpy(image)).numpy()
        runtime, intel = by_onnx(kernel, stride, pad, inside, image, expected.shape)
        others = {"onnxruntime": runtime, "openvino": intel, "ncnn": by_ncnn(pool, image)}
        off = {name: float(np.abs(other - expected).max()) for name, other in others.items()}
        print(f"pool {kernel}x{kernel}, stride {stride}, padding {pad}, side {side}, count_include_pad={inside}:", off)
        found[side, inside] = [name for name, difference in off.items() if difference > 1e-3]
assert found == {(8, True): ["openvino", "ncnn"], (8, False): [], (7, True): ["ncnn"], (7, False): []}
PY

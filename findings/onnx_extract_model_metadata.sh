#!/usr/bin/env bash
# onnx.utils.extract_model drops a model's metadata; other tools of onnx keep it.
#
# One expects: cutting a network before its classifier keeps `metadata_props`: class names, normalisation, licence.
# What happens: the extracted model has none, without a word. Shape inference, conversion to another opset, prefixes,
#   onnxslim and the quantization and the float16 conversion of onnxruntime keep them.
# Why it matters: exporters of image networks write what a reader needs there (class names, mean and deviation, image
#   size). A backbone that was cut out to distil from, or to fine-tune, no longer says how its images are normalised.
# Seen with: onnx 1.23.2, onnxruntime 1.32.0, onnxslim 0.1.98.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 onnxslim==0.1.98 sympy==1.14.0

cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import numpy as np
import onnx
import onnxslim
from onnx import TensorProto, compose, helper, numpy_helper, version_converter
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16

print(*(f"{name} {version(name)}" for name in ("onnx", "onnxruntime", "onnxslim")))
kernel = numpy_helper.from_array(np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32), "kernel")
nodes = [
    helper.make_node("Conv", ["images", "kernel"], ["a"], pads=[1, 1, 1, 1]),
    helper.make_node("GlobalAveragePool", ["a"], ["features"]),
    helper.make_node("Flatten", ["features"], ["logits"]),
]
images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 16, 16])
logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 8])
graph = helper.make_graph(nodes, "network", [images], [logits], [kernel])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
helper.set_model_props(model, {"mean": "[0.5, 0.5, 0.5]"})
onnx.checker.check_model(model)
onnx.save(model, "model.onnx")
onnx.utils.extract_model("model.onnx", "backbone.onnx", ["images"], ["features"])
quantize_dynamic("model.onnx", "int8.onnx")
made = {
    "extract_model": onnx.load("backbone.onnx"),
    "infer_shapes": onnx.shape_inference.infer_shapes(model),
    "convert_version": version_converter.convert_version(model, 20),
    "add_prefix": compose.add_prefix(model, "left/"),
    "onnxslim": onnxslim.slim(onnx.load("model.onnx")),
    "quantize_dynamic": onnx.load("int8.onnx"),
    "float16": convert_float_to_float16(onnx.load("model.onnx")),
}
kept = {name: "mean" in {entry.key for entry in result.metadata_props} for name, result in made.items()}
print("metadata kept:", kept)
assert [name for name, is_kept in kept.items() if not is_kept] == ["extract_model"]
PY

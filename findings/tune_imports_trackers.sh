#!/usr/bin/env bash
# Ray Tune imports MLflow in every run that has a callback, whatever the callback is.
#
# One expects: MLflow is imported by a program that uses MLflow's callback.
# What happens: the first callback of any kind, also one that does nothing, makes `Tuner.fit` import the integrations of
#   Comet, MLflow, Weights & Biases and Aim to count which of them are in use, each with its library if that is installed (all but
#   MLflow by its source). The count is made with usage statistics off, too. A run without callbacks imports none of them.
# Why it matters: the imports delay the start of a run by seconds, and a tracker that is installed and broken or that has
#   side effects at import reaches runs that do not use it.
# Seen with: ray 2.60.0, mlflow-skinny 3.17.2.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet ray==2.60.0 mlflow-skinny==3.17.2 fsspec==2026.9.0 pandas==3.1.1 pyarrow==26.0.1 pydantic==2.14.3 requests==2.34.2 tensorboardX==2.6.5

cd "$work"
cat > look.py <<'PY'
import sys

import ray
from ray import tune

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
given = [tune.Callback()] if sys.argv[1] == "with" else None
before = "mlflow" in sys.modules
tuner = tune.Tuner(lambda config: {"loss": 0.0}, run_config=tune.RunConfig(storage_path=sys.argv[2], callbacks=given, verbose=0))
tuner.fit()
print("ray", ray.__version__, sys.argv[1], "a callback: mlflow is imported", before, "->", "mlflow" in sys.modules)
sys.exit(0 if ("mlflow" in sys.modules) == (given is not None) and not before else 1)
PY
export RAY_USAGE_STATS_ENABLED=0
"$work/venv/bin/python" -W ignore look.py without "$work/results"
"$work/venv/bin/python" -W ignore look.py with "$work/results"

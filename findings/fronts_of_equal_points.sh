#!/usr/bin/env bash
# Of two equal points, two libraries keep one on the front, and two keep both.
#
# One expects: no point of a pair of equal points dominates the other, so both are on the front, as in every textbook.
# What happens: moocore.is_nondominated and paretoset mark the first one only (their defaults are `keep_weakly=False` and
#   `distinct=True`); pymoo and Optuna's `best_trials` keep both.
# Why it matters: accuracies on a few hundred images and costs of one cell space fall together all the time. The number of
#   networks on a front, its seeds and what is retrained then depend on the library, and on the order of rows.
# Seen with: moocore 0.3.2, pymoo 0.6.2, paretoset 1.2.5, Optuna 5.0.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet numpy==2.4.6 moocore==0.3.2 pymoo==0.6.2 paretoset==1.2.5 pandas==3.1.1 optuna==5.0.0

"$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import moocore
import numpy as np
import optuna
from paretoset import paretoset
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

print(*(f"{name} {version(name)}" for name in ("moocore", "pymoo", "paretoset", "optuna")))
optuna.logging.set_verbosity(optuna.logging.ERROR)
points = np.array([[0.1, 2.0], [0.1, 2.0], [0.2, 1.0]])
study = optuna.create_study(directions=["minimize", "minimize"])
for row in points:
    study.add_trial(optuna.trial.create_trial(values=row.tolist()))
fronts = {
    "moocore": np.flatnonzero(moocore.is_nondominated(points)).tolist(),
    "paretoset": np.flatnonzero(paretoset(points, sense=["min", "min"])).tolist(),
    "pymoo": sorted(NonDominatedSorting().do(points, only_non_dominated_front=True).tolist()),
    "optuna": [trial.number for trial in study.best_trials],
}
print("rows 0 and 1 are equal; on the front:", fronts)
assert fronts == {"moocore": [0, 2], "paretoset": [0, 2], "pymoo": [0, 1, 2], "optuna": [0, 1, 2]}
PY

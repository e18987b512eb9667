#!/usr/bin/env bash
# One NaN on a Pareto front removes the good points.
#
# One expects: a row with NaN is refused, or left out, as pandas does; at the least it dominates nothing.
# What happens: moocore, pymoo and paretoset compare with `<` and `>`, which are false for NaN. A row (NaN, 0.5) is then "not
#   worse" in the first objective and better in the second: it dominates every point above 0.5 there, and is what remains of
#   the front, alone. Nothing is raised or printed.
# Why it matters: a search whose training diverged reports a NaN error at a small cost. One such row among thousands replaces the
#   whole front of errors and costs.
# Seen with: moocore 0.3.2, pymoo 0.6.2, paretoset 1.2.5.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet numpy==2.4.6 moocore==0.3.2 pymoo==0.6.2 paretoset==1.2.5 pandas==3.1.1

"$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import moocore
import numpy as np
from paretoset import paretoset
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

print(*(f"{name} {version(name)}" for name in ("moocore", "pymoo", "paretoset")))
good = np.array([[0.10, 3.0], [0.20, 2.0], [0.30, 1.0]])
points = np.vstack([good, [[np.nan, 0.5]]])


def fronts(rows):
    return {
        "moocore": np.flatnonzero(moocore.is_nondominated(rows)).tolist(),
        "pymoo": NonDominatedSorting().do(rows, only_non_dominated_front=True).tolist(),
        "paretoset": np.flatnonzero(paretoset(rows, sense=["min", "min"])).tolist(),
    }


print("front of (error, cost) without the NaN row:", fronts(good))
print("front with row 3, (NaN, 0.5):              ", fronts(points))
assert set(map(tuple, fronts(good).values())) == {(0, 1, 2)}
assert set(map(tuple, fronts(points).values())) == {(3,)}
PY

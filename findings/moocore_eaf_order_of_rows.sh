#!/usr/bin/env bash
# moocore.eaf gives other attainment surfaces if the rows of a table are in another order.
#
# One expects: each row comes with the number of its set, so the order of rows does not matter, as in a group-by.
# What happens: rows of one set must follow each other. Where they are interleaved, other surfaces come back, without an error
#   or a warning: points that no such share of the sets reached are on them, and points that it did reach are missing.
# Why it matters: the points of several searches are usually written in the order of time, or sorted by cost. The median front
#   of the searches, the usual picture of a comparison, is then that of no median.
# Seen with: moocore 0.3.2.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet numpy==2.4.6 moocore==0.3.2

"$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import moocore
import numpy as np

print("moocore", version("moocore"), "numpy", np.__version__)
front = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
points, sets = np.vstack([front, front + 0.5, front + 1]), np.repeat([1, 2, 3], 3)
order = np.array([0, 3, 6, 1, 4, 7, 2, 5, 8])  # the first point of each set, then the second ones
whole, mixed = moocore.eaf(points, sets), moocore.eaf(points[order], sets[order])
for name, surfaces in (("set by set", whole), ("interleaved", mixed)):
    print(f"{name}: median surface", surfaces[np.isclose(surfaces[:, 2], 200 / 3)][:, :2].tolist())
# Two of three sets reach a point if it is behind a point of the second one, `front + 0.5`.
assert whole[np.isclose(whole[:, 2], 200 / 3)][:, :2].tolist() == (front + 0.5).tolist()
assert not np.array_equal(whole, mixed)
PY

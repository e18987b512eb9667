"""Charts of the proof: every line shows the means that the tables show, worked out by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
import proof_charts


def test_error_chart_has_a_line_per_arm_with_means_and_intervals():
    rows = [("dnad", 0, 0.1), ("dnad", 1, 0.3), ("snps", 0, 0.4)]
    frame = pd.DataFrame([{"arm": a, "seed": s, "target": 1000, "macs": 900, "error": e} for a, s, e in rows])
    dnad, snps = proof_charts.error_figure(frame).data
    assert (dnad.name, snps.name) == ("dnad", "snps")
    assert dnad.y == pytest.approx((0.2,))
    # Of 0.1 and 0.3: standard error 0.1, and the 97.5 % point of t with one degree of freedom is 12.706.
    assert dnad.error_y.array == pytest.approx((1.2706,), rel=1e-4)
    assert list(snps.error_y.array) == [0]  # one seed has no interval


def test_gap_chart_shows_the_mean_of_seeds_and_nothing_where_nothing_was_looked_at():
    gaps = pd.DataFrame({"arm": "snps", "seed": [0, 1, 0], "epoch": [1, 1, 2], "gap": [0.1, 0.2, 0.4]})
    (line,) = proof_charts.gap_figure(gaps).data
    assert (list(line.x), list(line.y)) == ([1, 2], pytest.approx([0.15, 0.4]))
    assert proof_charts.gap_figure(gaps[:0]) is None


def test_response_chart_shows_each_seed_and_the_mean_of_each_setting():
    frame = pd.DataFrame({"arm": ["dnad", "dnad", "rate x 2.0"], "error": [0.1, 0.2, 0.5]})
    seeds, means = proof_charts.response_figure(frame).data
    assert list(seeds.y) == [0.1, 0.2, 0.5]
    assert (list(means.x), list(means.y)) == (["dnad", "rate x 2.0"], pytest.approx([0.15, 0.5]))
    assert proof_charts.response_figure(frame[:0]) is None

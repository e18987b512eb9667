"""Tables of the proof: intervals, corrections and volumes worked out by hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
import proof_tables

from search_spaces.genotype import CellGenotype, Edge, Genotype


def test_interval_of_the_mean_is_students():
    # Of 1, 2, 3: standard error 1 / sqrt(3), and the 97.5 % point of t with 2 degrees of freedom is 4.302653.
    mean, margin = proof_tables.mean_and_margin([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert margin == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert math.isnan(proof_tables.mean_and_margin([1.0])[1])


def test_holm_multiplies_by_what_is_left_and_never_falls():
    assert proof_tables.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert proof_tables.holm([0.5, 0.9]) == [1.0, 1.0]


def test_volume_counts_doublings_of_cost_alike():
    # Targets 2, 4: the box is from cost 1 to 4, two doublings. A point of no error at cost 2 covers one of them.
    assert proof_tables.volume([(0.0, 2.0)], [2, 4], 0.9) == pytest.approx(0.5)
    # A second one of half the error of chance at cost 1 (no doublings) adds half of the other half.
    assert proof_tables.volume([(0.0, 2.0), (0.45, 1.0)], [2, 4], 0.9) == pytest.approx(0.75)
    assert proof_tables.volume([], [2, 4], 0.9) == 0.0


def frame(errors):
    rows = [
        {"arm": arm, "seed": seed, "target": 1_000_000, "error": error, "macs": 1_000_000, "search_macs": 6e12}
        for arm, of_seeds in errors.items()
        for seed, error in enumerate(of_seeds)
    ]
    return pd.DataFrame(rows)


def test_arms_are_paired_by_seed():
    # dnad is 1, 1 and 4 points better; mean 2, standard error 1, t = 2 with 2 degrees of freedom: p = 0.1835.
    found = proof_tables.paired_table(frame({"dnad": [0.10, 0.20, 0.30], "snps": [0.11, 0.21, 0.34]}), "dnad")
    assert found.splitlines()[2:] == ["| snps | +2.00 +- 4.30 | 3 of 3 | 0.184 | 0.184 |"]


def test_responses_are_paired_with_dnad_and_corrected():
    # As above for the temperature; the weight's differences are the mirrored ones: the same t.
    rows = frame({"dnad": [0.1, 0.2, 0.3], "temperature 1.0": [0.11, 0.21, 0.34], "weight 1.0": [0.06, 0.19, 0.29]})
    lines = proof_tables.response_table(rows.assign(proxy_accuracy=0.75)).splitlines()
    assert lines[2] == "| dnad | 20.00 +- 24.84 |  | 25.00 +- 0.00 | 3 |  |  |"
    assert lines[3].endswith("| +2.00 +- 4.30 | 25.00 +- 0.00 | 3 | 0.184 | 0.367 |")
    assert lines[4].endswith("| -2.00 +- 4.30 | 25.00 +- 0.00 | 3 | 0.184 | 0.367 |")


def test_seeds_that_one_arm_lacks_are_left_out_of_the_pairs():
    rows = frame({"dnad": [0.10, 0.20], "snps": [0.20, 0.40, 0.99]})
    assert "| snps | +15.00 +- 63.53 | 2 of 2 |" in proof_tables.paired_table(rows, "dnad")


def test_compute_is_said_per_seed_and_per_network():
    found = proof_tables.compute_table(frame({"snps": [0.1, 0.2]}))
    assert found.splitlines()[2] == "| snps | 6.000 +- 0.000 | 6.000 +- 0.000 |"


def test_networks_are_described_by_their_operations_and_how_these_rank_with_errors():
    def pick(seed, *nodes):
        cell = CellGenotype(reduction=False, nodes=tuple(tuple(Edge(*edge) for edge in node) for node in nodes))
        subject = {"genotype": Genotype(cells=(cell,)).to_dict()}
        return {"arm": "snps", "seed": seed, "target": 1_000_000, "subject": subject}

    one = pick(0, [("sep_conv_3x3", 0), ("skip_connect", 1)])
    other = pick(1, [("sep_conv_3x3", 0)], [("sep_conv_3x3", 1), ("sep_conv_3x3", 2), ("max_pool_3x3", 1)])
    stranger = {"arm": "resnet18", "seed": 0, "target": 1_000_000, "subject": {"model": "resnet18"}}
    lines = proof_tables.operation_table([one, other, stranger], frame({"snps": [0.2, 0.1]})).splitlines()
    names = "max_pool_3x3 | sep_conv_3x3 | skip_connect | operations | networks"
    assert lines[0] == f"| What networks are made of | {names} |"
    # Half and three quarters, none and a quarter, a half and none; two and four. The error is 20 and 10 %.
    assert lines[2:] == [
        "| snps | 12.5% | 62.5% | 25.0% | 3.0 | 2 |",
        "| rank with error | -1.00 | -1.00 | +1.00 | -1.00 | 2 |",
    ]
    assert proof_tables.operation_table([stranger], frame({"resnet18": [0.2]})) == ""

"""Folders of the proof read into frames: several as one, gaps at equal epochs."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
import proof_results
import proof_tables


def frame(errors):
    rows = [
        {"arm": arm, "seed": seed, "target": 1_000_000, "error": error, "macs": 1_000_000, "search_macs": 6e12}
        for arm, of_seeds in errors.items()
        for seed, error in enumerate(of_seeds)
    ]
    return pd.DataFrame(rows)


def test_folders_of_other_seeds_are_one_table_and_seeds_count_once():
    first = frame({"dnad": [0.10, 0.20], "snps": [0.11, 0.21]})
    third = frame({"dnad": [0.30], "snps": [0.34]}).assign(seed=2)
    found = proof_tables.paired_table(proof_results.together([first, pd.DataFrame(), third]), "dnad")
    assert found.splitlines()[2:] == ["| snps | +2.00 +- 4.30 | 3 of 3 | 0.184 | 0.184 |"]
    assert not len(proof_results.together([pd.DataFrame()]))
    with pytest.raises(SystemExit, match="got arm dnad under seed 1 twice"):
        proof_results.together([first, first[first["seed"] == 1]])


def test_gap_is_training_minus_validation_at_the_end():
    picks = [
        {"arm": "snps", "seed": seed, "history": [[1, 0.3, 0.3], [2, 0.8, 0.5 + 0.1 * seed]]} for seed in (0, 1)
    ] + [{"arm": "random", "seed": 0, "history": None}]
    gaps = proof_results.gap_frame(picks)
    assert gaps["gap"].round(6).tolist() == [0.0, 0.3, 0.0, 0.2]
    assert proof_tables.gap_table(gaps).splitlines()[2].startswith("| snps | 12.50 +- 31.77 |  | 25.00 +- 63.53 |")


def test_gaps_are_compared_at_the_same_epochs():
    # darts is looked at from epoch 1 to 3, snps from 2 to 4. At epochs 2 and 3 darts is 10 and 20 points worse under
    # seed 0, 10 and 10 under seed 1: 15 and 10 on average, mean 12.5, and 12.706 times the standard error 2.5.
    gaps = {
        ("snps", 0): {2: 0.1, 3: 0.2, 4: 0.3},
        ("snps", 1): {2: 0.1, 3: 0.2, 4: 0.3},
        ("darts", 0): {1: -0.8, 2: 0.2, 3: 0.4},
        ("darts", 1): {1: -0.8, 2: 0.2, 3: 0.3},
    }
    picks = [
        {"arm": arm, "seed": seed, "history": [[epoch, gap, 0.0] for epoch, gap in history.items()]}
        for (arm, seed), history in gaps.items()
    ]
    lines = proof_tables.gap_table(proof_results.gap_frame(picks)).splitlines()
    assert lines[2].startswith("| snps | 20.00 +- 0.00 |")
    assert lines[3].startswith("| darts | 27.50 +- 31.77 | +12.50 +- 31.77 (p 0.126)")

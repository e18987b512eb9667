"""The columns of text inside a report."""

from __future__ import annotations

import pandas as pd

from analysis.report.data import column_of


def test_column_of_words_that_recur_is_stored_by_numbers():
    frame = pd.DataFrame({"trial": ["b", "a", "b", "b"], "macs": [1200, 3, 1200, 7]})
    assert column_of(frame, "trial") == {"words": ["b", "a"], "codes": [0, 1, 0, 0]}
    assert column_of(frame, "macs") == {"words": ["1,200", "3", "1,200", "7"]}  # most differ


def test_column_of_a_missing_number_is_a_dash_and_of_imitation_all_that_it_needs():
    frame = pd.DataFrame(
        {"kd_kind": ["none", "logits"] * 3, "kd_temperature": [None, 4.0] * 3, "kd_weight": [1.0, 0.5] * 3}
    )
    assert column_of(frame, "kd") == {"words": ["none", "logits, T 4, weight 0.5"], "codes": [0, 1, 0, 1, 0, 1]}
    assert column_of(frame, "kd_temperature") == {"words": ["-", "4"], "codes": [0, 1, 0, 1, 0, 1]}

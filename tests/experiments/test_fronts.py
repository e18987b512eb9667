"""The experiment on fronts: its measure by hand, and its README says what its table says."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "fronts"))
from summary import TABLE, accuracies, compared, hypervolume, hypervolumes


def test_hypervolume_by_hand():
    # The cost axis has five doublings, from 100 to 3,200: 400 is at 2/5, 1,600 at 4/5.
    front = pd.DataFrame({"macs": [400, 1600], "error": [0.5, 0.25]})
    assert hypervolume(front, largest=1600) == pytest.approx(0.5 * 3 / 5 + 0.25 * 1 / 5)
    # A network below a sixteenth of the largest budget gains nothing by that.
    tiny = [hypervolume(pd.DataFrame({"macs": [macs], "error": [0.5]}), largest=1600) for macs in (50, 100)]
    assert tiny == pytest.approx([0.5, 0.5])


def test_readme_has_the_lines_of_the_summary():
    table, readme = pd.read_csv(TABLE), TABLE.with_name("README.md").read_text()
    lines = [*compared(hypervolumes(table)), *accuracies(table)]
    assert len(lines) > 10
    assert [line for line in lines if line not in readme] == []


def test_arms_have_the_compute_of_fit():
    table = pd.read_csv(TABLE).drop_duplicates(["images", "seed", "arm"])
    of_fit = table[table["arm"] == "fit"].set_index(["images", "seed"])["cpu_seconds"]
    for row in table.to_dict("records"):
        assert 0.8 <= row["cpu_seconds"] / of_fit[row["images"], row["seed"]] <= 1.2

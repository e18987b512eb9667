"""The words that a report explains."""

from __future__ import annotations

from analysis import load_runs
from analysis.report.glossary import glossary_of


def test_glossary_says_how_well_a_score_ranks_where_there_is_one(make_run, repository):
    frame = load_runs(make_run())
    name = "Score without training"
    assert name not in dict(glossary_of(frame))
    words = dict(glossary_of(frame.assign(score=1.0)))[name]
    measured = (repository / "experiments" / "truth" / "README.md").read_text()
    assert "0.34 (95 %: 0.16 to 0.50)" in words
    assert "0.37 (0.18 to 0.54)" in words
    assert "72 networks (zen) | 0.60 (0.50 to 0.68) | 0.34 (0.16 to 0.50) |" in measured
    assert "both halves, 121 cells | 0.42 (0.32 to 0.52) | 0.37 (0.18 to 0.54) |" in measured
    assert "0.77 / 0.69" in measured

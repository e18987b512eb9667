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
    assert "0.39 (95 %: 0.24 to 0.53)" in words
    assert "0.34 (0.17 to 0.49)" in words
    assert "80 networks (zen) | 0.61 (0.51 to 0.68) | 0.39 (0.24 to 0.53) |" in measured
    assert "both halves, 150 cells | 0.39 (0.29 to 0.49) | 0.34 (0.17 to 0.49) |" in measured
    assert "0.76 / 0.71" in measured

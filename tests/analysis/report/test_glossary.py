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
    assert "0.38 (95 %: 0.23 to 0.52)" in words
    assert "0.33 (0.16 to 0.48)" in words
    assert "80 networks (zen) | 0.61 (0.52 to 0.69) | 0.38 (0.23 to 0.52) |" in measured
    assert "both halves, 150 cells | 0.42 (0.31 to 0.50) | 0.33 (0.16 to 0.48) |" in measured
    assert "0.79 / 0.73" in measured

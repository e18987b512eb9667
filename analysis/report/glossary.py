"""The words of a report, each explained in one sentence."""

from __future__ import annotations

import pandas as pd

from analysis.charts.words import KINDS

__all__ = ["glossary_of"]

_ALWAYS = {
    "Supernet": "One network that holds every candidate operation of a search. They share its weights, and the search "
    "deletes them one after the other.",
    "Trial": "One search, with one seed and one setting.",
    "Snapshot": "A network that was recorded while a search shrank its supernet: the operations alive at that moment.",
    "Architecture": "What a network consists of: which operation connects what (genotype). Its name here, 16 letters "
    "and digits, is a digest of it; the same name is the same architecture.",
    "MACs": "Multiply-adds for one image: the cost of using the network.",
    "Proxy error": "Share of held-out images that a network classifies wrongly with the supernet's shared weights, "
    "without training of its own.",
    "Front": "The networks that no other one beats in error, MACs and parameters at once (Pareto front).",
    "Hypervolume": "Share of the box between zero and the worst values that a front beats. More is better.",
    "Shrink rate": "Share of the initial candidates that a search wants to delete per epoch.",
}
_WITHOUT_SEARCH = ("Architecture", "MACs", "Front")
_IMITATION = {
    "Teacher, imitation (KD)": "A trained network whose outputs or features the supernet imitates while it is trained "
    "(knowledge distillation).",
    "KD temperature (T)": "Divides the outputs of both networks before they are compared: above 1 small probabilities "
    "count more.",
    "KD weight": "How much imitation counts beside the labels.",
}
_SCORE = {
    "Score without training": "An estimate of which network is better, from its initial weights (and its cost, in "
    "NAS-Bench-201's space). Among networks of equal cost that were trained from scratch, Kendall's tau of score and "
    "accuracy was 0.38 (95 %: 0.23 to 0.52) in DNAD's space and 0.33 (0.16 to 0.48) in NAS-Bench-201's; with so short "
    "a training at most 0.73 and 0.79 are possible. 0 is chance, 1 a perfect order.",
}
_KIND = "Kind {}"


def glossary_of(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the words that a report on these snapshots uses, with their meaning.

    Args:
        frame: Snapshots.
    """
    words = {name: _ALWAYS[name] for name in (_ALWAYS if len(frame) else _WITHOUT_SEARCH)}
    if len(frame) and (frame["kd_kind"] != "none").any():
        words |= _IMITATION
    if len(frame) and frame["score"].notna().any():
        words |= _SCORE
    present = set(frame["kind"]) if len(frame) else set()
    words |= {_KIND.format(kind): f"Recorded because {why}." for kind, why in KINDS.items() if kind in present}
    return list(words.items())

"""The records of a search: scores without training beside the proxy error."""

from __future__ import annotations

from dnad_ray.networks.scores import SCORES, rank_score, scores_of
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.search.loop import SearchState, search


def test_snapshots_have_the_score_that_ranks_in_their_space(tiny, digits):
    settings = {"train.epochs": 3, "evaluation.scores": ["score"]}
    for space, name in (({}, "zen"), ({"space.name": "nas-bench-201"}, "jacov")):
        state = SearchState.start(tiny(settings | space), digits, run="demo", trial="t00")
        record = next(event for event in search(state) if isinstance(event, Snapshot))
        assert [other for other in SCORES if getattr(record, other) is not None] == [name]
        genotype = state.genotype_of(record)
        assert record.score == rank_score({name: getattr(record, name)}, genotype, record.macs, 32) is not None


def test_snapshots_have_the_scores_that_are_asked_for_and_the_search_is_the_same(tiny, digits, timeless):
    def records(scores):
        config = tiny({"train.epochs": 3, "evaluation.ladder": True, "evaluation.scores": scores})
        state = SearchState.start(config, digits, run="demo", trial="t00")
        return timeless(event for event in search(state) if isinstance(event, Snapshot)), state

    plain, _ = records([])
    scored, state = records(["zen", "synflow"])
    assert len(scored) == len(plain) > 3
    names = {name for name in SCORES if any(record[name] is not None for record in scored)}
    assert names == {"zen", "synflow"}
    assert all(record["score"] == record["zen"] for record in scored)
    assert len({record["zen"] for record in scored}) == len({record["digest"] for record in scored})
    without = dict.fromkeys((*SCORES, "score"))
    assert [record | without for record in scored] == plain
    last = scored[-1] | {"device_seconds": 0.0}
    shape = state.shape(state.config.space.init_channels)
    assert scores_of(state.genotype_of(Snapshot.from_dict(last)), shape, state.score_batch, ["zen"]) == {
        "zen": last["zen"]
    }
    assert state.score_batch.images.shape == (32, 1, 8, 8)

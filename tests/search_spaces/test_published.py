"""What is shipped about published cells: complete, readable, and built as its source says."""

from __future__ import annotations

import pytest

from search_spaces.errors import GenotypeError
from search_spaces.genotype import NONE
from search_spaces.published import published, published_named


def test_every_entry_says_where_it_is_from_and_can_be_read():
    assert len(published()) >= 20
    for name, entry in published().items():
        assert entry.name == name
        assert entry.title
        assert "arXiv" in entry.paper
        assert entry.source
        assert entry.figures
        assert set(entry.figures) <= {"cifar10", "imagenet"}
        assert entry.genotype().is_connected


@pytest.mark.parametrize("name", sorted(published()))
def test_nothing_in_a_published_cell_is_dead(name):
    """A slip in a state's number would most often leave a node or an input that leads nowhere."""
    genotype = published_named(name).genotype()
    edges = sum(edge.operation != NONE for cell in genotype.cells for node in cell.nodes for edge in node)
    assert genotype.pruned().num_operations == edges


def test_name_that_is_not_shipped():
    with pytest.raises(GenotypeError, match=r"published genotype: got 'resnet'; allowed: .*darts-v2"):
        published_named("resnet")

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from analysis.charts.architecture import _architecture_info, draw_architecture
from search_spaces.genotype import NONE, CellGenotype, Edge, Genotype


@pytest.fixture
def genotype():
    """Cell 1 reduces, nothing reads cell 2, and one edge is none."""
    return Genotype(
        (
            CellGenotype(False, ((Edge("sep_conv_3x3", 0), Edge("skip_connect", 0)), (Edge(NONE, 2),))),
            CellGenotype(True, ((Edge("dil_conv_5x5", 1),), (Edge("skip_connect", 2),))),
            CellGenotype(False, ((Edge("sep_conv_3x3", 0),), ())),
            CellGenotype(False, ((Edge("skip_connect", 0),), ())),
        )
    )


def test_architecture_info_is_what_is_alive(genotype):
    info = _architecture_info(genotype)
    assert [(style.operation, style.num_edges) for style in info.styles] == [
        ("sep_conv_3x3", 1),
        ("dil_conv_5x5", 1),
        ("skip_connect", 3),
    ]
    assert [[(arc.operation, arc.source, arc.target) for arc in cell.arcs] for cell in info.layout.cells] == [
        [("sep_conv_3x3", 0, 2), ("skip_connect", 0, 2)],
        [("dil_conv_5x5", 1, 2), ("skip_connect", 2, 3)],
        [],
        [("skip_connect", 0, 2)],
    ]


def test_draw_architecture_shows_every_edge_and_what_is_gone(genotype):
    drawing = draw_architecture(genotype)
    root = ElementTree.fromstring(drawing.html)  # well-formed, so nothing was left unescaped
    labels = [svg.get("aria-label") for svg in root.iter("svg") if svg.get("role") == "img"]
    assert labels == [
        "Cell 0, 2 operations",
        "Cell 1, reduction, 2 operations",
        "Cell 2, gone",
        "Cell 3, 1 operation",
    ]
    assert sorted(title.text for title in root.iter("title")) == [
        "dil_conv_5x5: cell 0 to node 0",
        "sep_conv_3x3: stem to node 0",
        "skip_connect: cell 1 to node 0",
        "skip_connect: node 0 to node 1",
        "skip_connect: stem to node 0",
    ]
    assert [text.text for text in root.iter("text")].count("gone") == 1
    assert [text.text for text in root.iter("text")].count("reduction") == 1


def test_draw_architecture_parallel_edges_have_paths_of_their_own(dense):
    paths = re.findall(r'<path d="(M[^"]*C[^"]*)"', draw_architecture(dense(1, 2)).html)
    assert len(paths) == len(set(paths)) == 15


def test_draw_architecture_same_operation_looks_the_same_everywhere(dense):
    few = _architecture_info(dense(1, 1, ("skip_connect", "my_op"))).styles
    many = _architecture_info(dense(1, 1, ("sep_conv_3x3", "max_pool_3x3", "skip_connect", "my_op"))).styles
    looks = {style.operation: (style.colour, style.dashes) for style in many}
    assert all(looks[style.operation] == (style.colour, style.dashes) for style in few)
    assert len(set(looks.values())) == 4


def test_draw_architecture_names_are_escaped():
    hostile = Genotype((CellGenotype(False, ((Edge("<script>alert(1)</script>", 0),),)),))
    html = draw_architecture(hostile).html
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_draw_architecture_of_nothing_at_all():
    empty = Genotype((CellGenotype(False, ((),)), CellGenotype(True, ((),))))
    labels = re.findall(r'aria-label="([^"]*)"', draw_architecture(empty).html)
    assert labels == ["Cell 0, gone", "Cell 1, reduction, gone"]


def test_draw_architecture_stays_small_and_shows_in_notebooks(dense):
    drawing = draw_architecture(dense(14, 4))
    assert len(drawing.html) < 150_000
    assert drawing._repr_html_() == drawing.html

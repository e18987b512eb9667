"""docs/formats.md: its tables are whole, and the functions that write them work by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import format_tools, formats
from benchmarks.format_networks import NETWORKS


def table(repository: Path, name: str) -> list[list[str]]:
    """Cells of the table between two marks, without its rule."""
    page = (repository / "docs/formats.md").read_text(encoding="utf-8")
    part = page.partition(f"<!-- {name}: ")[2].partition(f"<!-- end of {name} -->")[0]
    rows = [line for line in part.splitlines() if line.startswith("|")]
    assert set(rows[1]) <= set("|- ")
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in (rows[0], *rows[2:])]


def test_formats_page_has_a_whole_row_for_every_tool(repository: Path) -> None:
    head, *rows = table(repository, "tools")
    assert [row[0] for row in rows] == [tool.title for tool in formats.TOOLS.values()]
    assert {len(row) for row in rows} == {len(head)}
    for row in rows:
        read, _, total = row[2].partition(" of ")
        if row[2] != "no":
            assert 0 <= int(read) <= int(total) <= len(NETWORKS)
        assert read == total or len(row[-1]) > 10, "a row that fails says why"
        assert row[3] == "-" or float(row[3]) >= 0


def test_formats_page_has_every_counter_and_every_network(repository: Path) -> None:
    head, *rows = table(repository, "counters")
    assert head[1:] == list(NETWORKS)
    assert [row[0] for row in rows][2:] == [tool.title for tool in formats.COUNTERS.values()]
    assert {len(row) for row in rows} == {len(head)}
    ours = [int(cell.replace(",", "")) for cell in rows[0][1:]]
    for row in rows[2:]:
        for cell, macs in zip(row[1:], ours, strict=True):
            count, _, share = cell.partition(" (")
            assert share == f"{int(count.replace(',', '')) / macs - 1:+.1%})"


def test_formats_every_row_has_a_function_and_pinned_packages() -> None:
    assert set(formats.TOOLS) == set(format_tools.TOOLS)
    assert set(formats.COUNTERS) == set(format_tools.COUNTERS)
    packages = {package for tool in (*formats.TOOLS.values(), *formats.COUNTERS.values()) for package in tool.packages}
    assert all("==" in package for package in packages)


def test_formats_page_keeps_its_sentences() -> None:
    page = "a\n<!-- x: written by benchmarks/formats.py -->\nold\n<!-- end of x -->\nb\n"
    assert formats.between(page, "x", ["new"]) == page.replace("old", "\nnew\n")
    with pytest.raises(SystemExit):
        formats.between("no marks", "x", [])


def test_formats_row_by_hand() -> None:
    facts = {name: {"metadata": ["mean", "std"]} for name in "ab"}
    good = {"read": True, "keys": ["mean", "std", "more"], "remarks": ["r", "1 node"], "difference": 1e-6, "agree": 1.0}
    worse = {**good, "keys": ["std"], "remarks": ["r", "2 nodes"], "difference": 0.02, "agree": 0.95}
    both = formats.tool_cells({"networks": {"a": good, "b": worse}}, facts)
    assert both == ["2 of 2", "2.0e-02", "95.0%", "kept, part", "r; 1 node / 2 nodes"]
    bad = {"read": False, "error": "no"}
    assert formats.tool_cells({"networks": {"a": bad, "b": bad}}, facts) == ["0 of 2", "-", "-", "-", "a, b: no"]
    assert formats.tool_cells({"networks": {}, "failed": "why"}, facts) == ["no", "-", "-", "-", "why"]
    assert formats.told("cannot read /home/me/x.py at http://host/y | z") == "cannot read ... at ... / z"

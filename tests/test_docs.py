"""The pages that people read: what they name exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*/(?:[\w.-]+\.(?:py|md|yaml|png|ipynb|html|css|js))?")
ROOTS = (
    "analysis/",
    "benchmarks/",
    "cluster/",
    "dnad_ray/",
    "docs/",
    "experiments/",
    "findings/",
    "search_spaces/",
    "tests/",
)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def pages(repository: Path) -> list[Path]:
    return [repository / "README.md", repository / "CONTRIBUTING.md", *sorted((repository / "docs").glob("*.md"))]


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as they are made by hosts of Markdown: lower case, hyphens, no punctuation."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}


def missing(page: Path, text: str, repository: Path) -> Iterator[str]:
    """Yield every link and every path of the repository in a page that leads nowhere."""
    for link in LINK.findall(text):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            yield link
    for path in PATH.findall(LINK.sub("", text)):
        if path.startswith(ROOTS) and not (repository / path).exists():
            yield path


def test_docs_name_only_files_that_exist(repository: Path) -> None:
    found = {page.name: [*missing(page, page.read_text(encoding="utf-8"), repository)] for page in pages(repository)}
    assert len(found) > 15
    assert {name: paths for name, paths in found.items() if paths} == {}


def test_docs_every_page_can_be_reached_from_the_readme(repository: Path) -> None:
    linked = set(LINK.findall((repository / "README.md").read_text(encoding="utf-8")))
    assert {f"docs/{page.name}" for page in (repository / "docs").glob("*.md")} - linked == set()


def test_docs_readme_fits_one_screen(repository: Path) -> None:
    assert len((repository / "README.md").read_text(encoding="utf-8").splitlines()) <= 80


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`dnad_ray/attic.py` and `dnad_ray/errors.py`", ["dnad_ray/attic.py"]),
        ("`python benchmarks/nothing.py --json x.json`", ["benchmarks/nothing.py"]),
        ("rooms: `dnad_ray/attic/`, `dnad_ray/storage/`, `runs/demo/report.html`", ["dnad_ray/attic/"]),
        ("[a](docs/attic.md) [b](docs/results.md) [c](https://example.org)", ["docs/attic.md"]),
        ("[a](docs/results.md#nothing-here) [b](#dnad-ray)", ["docs/results.md#nothing-here"]),
    ],
)
def test_docs_check_notices(text: str, expected: list[str], repository: Path) -> None:
    assert [*missing(repository / "README.md", text, repository)] == expected

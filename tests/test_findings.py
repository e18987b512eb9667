"""The form of the scripts in findings/, which CI does not run: self-contained, pinned, cleaned up, explained."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).resolve().parent.parent / "findings").glob("*.sh"))
HEADINGS = ("One expects:", "What happens:", "Why it matters:", "Seen with:")


def header_of(text: str) -> str:
    """The comment behind the first line."""
    lines = text.splitlines()[1:]
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:end])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_finding_has_the_form_that_contributing_states(script: Path, repository: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert text.isascii()
    assert text.startswith("#!/usr/bin/env bash\n# ")
    header = header_of(text)
    assert [heading for heading in HEADINGS if f"# {heading}" in header] == list(HEADINGS)
    assert "set -euo pipefail" in text
    assert "work=$(mktemp -d)\ntrap 'rm -rf \"$work\"' EXIT\n" in text
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    # Every package has an exact version, and the header names each that the finding is about.
    installs = re.findall(r"pip install [^\n]*?((?: [\w.-]+==[\w.]+)+)\n", text)
    assert installs
    assert text.count("pip install") == len(installs)
    assert not re.search(r"dnad|search_spaces|\w+://|(?<![\w.$\"/])/(?:home|root|tmp|work|opt|usr/(?!bin/env))", text)
    assert script.name in (repository / "findings/README.md").read_text(encoding="utf-8")


def test_findings_are_there() -> None:
    assert len(SCRIPTS) >= 5

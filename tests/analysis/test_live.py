"""The live page as text: small, complete without a network, and no name can break out of it."""

from __future__ import annotations

import json

from analysis.live import live_page, live_script
from dnad_ray.run_folder.metrics import metric


def test_live_page_is_small_and_asks_for_nothing_but_its_script():
    page = live_page("</title><script>alert(1)</script>")
    assert "<script>alert" not in page
    assert len(page) < 40_000
    assert "http:" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https:" not in page
    assert json.dumps(metric("macs").axis) in page


def test_live_script_is_a_call_with_plain_data():
    picture = {"run": "</script><b>", "front": [], "hypervolume": 0.25}
    script = live_script(picture)
    assert "<" not in script
    assert json.loads(script.removeprefix("drawRun(").removesuffix(");\n")) == picture

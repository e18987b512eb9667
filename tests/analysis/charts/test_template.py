from __future__ import annotations

import plotly.io

from analysis.charts import template
from dnad_ray.run_folder.metrics import Metric, metric


def test_axis_takes_label_unit_and_format_from_the_metric():
    layout = template.axis(metric("error"))
    assert layout["title"]["text"].startswith("Proxy error<br>")
    assert "share of validation images" in layout["title"]["text"]
    assert layout["tickformat"] == "~%"
    assert template.axis(metric("macs"), log=True) | {"minor": 0} == {
        "title": {"text": 'MACs<br><span style="font-size:12px">multiply-adds per image</span>'},
        "tickformat": "~s",
        "type": "log",
        "nticks": 3,
        "minor": 0,
    }
    assert template.axis(Metric("x", "a <b>", "", None, ".3g"))["title"]["text"] == "a &lt;b&gt;"


def test_colours_of_are_distinct_however_many_names():
    for number in (0, 1, 7, 8, 40):
        names = [str(index) for index in range(number)]
        colours = template.colours_of(names)
        assert list(colours) == names
        assert len(set(colours.values())) == number


def test_text_of_hides_tags_from_plotly():
    assert template.text_of("<b>&amp;") == "&lt;b&gt;&amp;amp;"


def test_template_leaves_the_default_alone():
    assert plotly.io.templates.default == "plotly"

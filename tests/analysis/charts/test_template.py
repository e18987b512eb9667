from __future__ import annotations

import re

import plotly.colors
import plotly.io

from analysis.charts import template
from analysis.charts.architecture import _STYLES, draw_architecture
from analysis.charts.operations import plot_operations
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


def test_axis_of_a_share_ends_at_one():
    assert template.axis(metric("error"))["autorangeoptions"]["clipmax"] < 1.05
    assert template.axis(metric("hypervolume"))["autorangeoptions"]["clipmax"] < 1.05
    assert "autorangeoptions" not in template.axis(metric("macs"))


def _brightness(colour):
    red, green, blue = plotly.colors.hex_to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_every_colour_of_drawings_and_heat_maps_stands_out_on_a_dark_page(dense):
    drawing = draw_architecture(dense(3, 4, tuple(_STYLES)))
    others = plot_operations([dense(), dense(), dense()]).to_json()
    colours = set(re.findall(r"#[0-9a-f]{6}\b", drawing.html)) | set(re.findall(r'\[[0-9.]+,"(#[0-9a-f]{6})"', others))
    assert len(colours) > 10
    paper = _brightness(template.DARK["white"])
    fills = {
        "#dfe4e9",
        "#eef1f4",
        "#fff4e0",
        "#f4f6f8",
        "#cfe3f1",
        "#e6e9ec",
        "#f3f5f6",
    }  # areas, which lie behind words
    for colour in colours:
        dark = _brightness(template.DARK.get(colour, colour))
        assert dark < 90 if colour in fills else dark > paper + 60, colour


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

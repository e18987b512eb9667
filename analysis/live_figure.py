"""A live figure that JupyterLab draws at first sight, however busy the machine is.

anywidget 0.11 gives the script of a widget two seconds to load; after that it drops every message from the kernel to
that widget. Plotly's script has 5 MB, and plotly 7.1 sends data and layout as messages after the widget was made. On a
busy machine the first figure of a page therefore stays empty for good. Here a script of a few lines loads at once, and
fetches plotly's own behind it; and the widget is made known to the page when its figure is complete, so that no message
is needed to draw it. The figure also waits until its place has a width, or it would be drawn 700 pixels wide.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any, final

import plotly
import plotly.graph_objects as go
import traitlets

__all__ = ["LiveFigure"]

_BUNDLE = Path(plotly.__file__).parent / "package_data" / "widgetbundle.js"

_SCRIPT = """
// Loaded once for all figures of a page.
const load = (text) => (globalThis.dnadRayPlotly ??= (async () => {
  const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  const made = (await import(url)).default;
  URL.revokeObjectURL(url);
  return made;
})());
const hasWidth = (element) => new Promise((resolve) => {
  const observer = new ResizeObserver(() => {
    if (!element.isConnected || element.clientWidth === 0) return;
    observer.disconnect();
    resolve();
  });
  observer.observe(element);
});
export default () => {
  let widget;
  return {
    initialize(context) {
      widget = load(context.model.get("_bundle")).then((made) => {
        const found = typeof made === "function" ? made() : made;
        found.initialize(context);
        return found;
      });
    },
    async render(context) {
      const found = await widget;
      await hasWidth(context.el);
      const clean = await found.render(context);
      // Plotly hears of the window's size only, and panels of JupyterLab change by themselves.
      let width = context.el.clientWidth;
      const observer = new ResizeObserver(() => {
        if (context.el.clientWidth === width || context.el.clientWidth === 0) return;
        width = context.el.clientWidth;
        window.dispatchEvent(new Event("resize"));
      });
      observer.observe(context.el);
      return () => { observer.disconnect(); clean(); };
    },
  };
};
"""


@final
class LiveFigure(go.FigureWidget):  # type: ignore[misc]
    """A figure that answers clicks and boxes; it reaches the page when :meth:`connect` is called.

    Args:
        figure: What it shows.
    """

    _esm = _SCRIPT
    _bundle = traitlets.Unicode().tag(sync=True)
    _is_complete = False

    def __init__(self, figure: go.Figure) -> None:
        super().__init__(figure)
        self._bundle = _BUNDLE.read_text(encoding="utf-8")
        self._config = self._config | {"responsive": True}  # type: ignore[has-type]

    def open(self) -> None:
        """Make the widget known to the page, if the figure is complete."""
        if self._is_complete:
            super().open()

    def connect(self) -> Any:
        """Make the widget known to the page, with all that was added to it so far; returns the figure."""
        # What was added since the figure was made is in its data, not yet in what the page gets at first.
        self._widget_data, self._widget_layout = deepcopy(self._data), deepcopy(self._layout)
        self._is_complete = True
        self.open()
        return self

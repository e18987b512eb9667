"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  for (const [name, figure] of Object.entries(data.figures)) {
    Plotly.newPlot(document.getElementById("chart-" + name), figure.data, figure.layout, options);
  }
  const chart = document.getElementById("chart-front");
  if (!chart) return;

  // Where each row of the frame is drawn, and the ring around the one that is shown.
  const places = new Map();
  for (const trace of chart.data) {
    (trace.customdata || []).forEach((row, index) => places.set(row, [trace.x[index], trace.y[index]]));
  }
  const ring = { size: 20, symbol: "circle-open", color: "#22272e", line: { width: 2.5 } };
  Plotly.addTraces(chart, { x: [], y: [], mode: "markers", marker: ring, hoverinfo: "skip", showlegend: false });

  const numbers = document.getElementById("picked-numbers");
  const drawing = document.getElementById("picked-drawing");
  const download = document.getElementById("picked-download");

  function show(row) {
    const values = data.points[row];
    const digest = values[values.length - 1];
    document.getElementById("picked-title").textContent = "Network " + digest;
    numbers.replaceChildren();
    data.labels.forEach((label, index) => {
      const term = document.createElement("dt");
      const value = document.createElement("dd");
      term.textContent = label;
      value.textContent = values[index];
      numbers.append(term, value);
    });
    const genotype = Object.hasOwn(data.genotypes, digest) ? data.genotypes[digest] : null;
    download.hidden = !genotype;
    if (download.href) URL.revokeObjectURL(download.href);
    download.removeAttribute("href");
    if (genotype) {
      const text = JSON.stringify(genotype, null, 1) + "\n";
      download.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
      download.download = digest + ".json";
      drawing.replaceChildren(document.getElementById("drawing-" + digest).content.cloneNode(true));
    } else {
      drawing.textContent = "Drawings are embedded for networks of the front only. This network is the file " +
        "genotypes/" + digest + ".json of its run folder.";
    }
    for (const element of document.querySelectorAll("[data-row]")) {
      element.classList.toggle("chosen", Number(element.dataset.row) === row);
    }
    const [x, y] = places.get(row);
    Plotly.restyle(chart, { x: [[x]], y: [[y]] }, [chart.data.length - 1]);
  }

  chart.on("plotly_click", (event) => {
    const row = event.points[0].customdata;
    if (row !== undefined) show(row);
  });
  for (const element of document.querySelectorAll("button[data-row]")) {
    element.addEventListener("click", () => {
      show(Number(element.dataset.row));
      chart.scrollIntoView({ block: "nearest" });
    });
  }
  show(data.first);
})();

"use strict";
(async () => {
  document.documentElement.dataset.beganAfter = String(Math.round(performance.now()));
  const status = document.getElementById("status");
  if (!window.reportData) {
    status.textContent = "This browser cannot inflate the page's data: it needs Chrome 80, Firefox 113, Safari 16.4 or newer.";
    status.hidden = false;
    return;
  }
  const unpacked = window.unpacked;
  const text = await window.reportData;
  const data = JSON.parse(text);
  const mark = (name) => { document.documentElement.dataset[name + "After"] = String(Math.round(performance.now())); };
  mark("unpacked");
  const byId = (id) => document.getElementById(id);
  const word = (name, row) => {
    const column = data.columns[name];
    return column.codes ? column.words[column.codes[row]] : column.words[row];
  };

  // -- light and dark ---------------------------------------------------------------------------------------------
  const media = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  let isDark = media.matches;
  // The dark end of a scale of colours is mixed with white, as in_dark does in Python.
  const brighter = (colour) => {
    const match = /^rgb\((\d+), (\d+), (\d+)\)$/.exec(colour);
    const parts = match ? match.slice(1).map(Number) : [255, 255, 255];
    if (0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2] >= 95) return colour;
    return "rgb(" + parts.map((part) => Math.round(part + 0.45 * (255 - part))).join(", ") + ")";
  };
  const swapped = (part) => {
    if (typeof part === "string") return brighter(Object.hasOwn(data.dark, part) ? data.dark[part] : part);
    if (Array.isArray(part)) return part.map(swapped);
    if (part && typeof part === "object" && !ArrayBuffer.isView(part)) {
      return Object.fromEntries(Object.entries(part).map(([name, value]) => [name, swapped(value)]));
    }
    return part;
  };
  // A drawing has its colours as attributes, and words of its own in a style.
  const recoloured = (element) => {
    if (!isDark) return element;
    for (const part of [element, ...element.querySelectorAll("*")]) {
      for (const name of ["fill", "stroke"]) {
        const colour = part.getAttribute(name);
        if (colour && Object.hasOwn(data.dark, colour)) part.setAttribute(name, data.dark[colour]);
      }
      const style = part.getAttribute("style");
      if (style) {
        part.setAttribute("style", style.replace(/(color|background):([^;]+)/g, (text, name, colour) =>
          Object.hasOwn(data.dark, colour) ? name + ":" + data.dark[colour] : text));
      }
    }
    return element;
  };
  const ink = () => (isDark ? data.dark["#22272e"] : "#22272e");

  // -- charts: drawn when they come near the window ---------------------------------------------------------------
  const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  const drawn = new Set();
  async function draw(name) {
    drawn.add(name);
    const figure = isDark ? swapped(data.figures[name]) : data.figures[name];
    const element = document.getElementById("chart-" + name);
    await Plotly.react(element, figure.data, structuredClone(figure.layout), options);
    return element;
  }
  function onClick(element) {
    element.on("plotly_click", (event) => {
      const row = event.points[0].customdata;
      if (typeof row === "number") show(row);
    });
  }
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      const name = entry.target.id.slice("chart-".length);
      draw(name).then((element) => { if (name === "space" || name === "parallel") onClick(element); });
    }
  }, { rootMargin: "300px" });

  const chart = document.getElementById("chart-front");
  const places = new Map();
  async function drawFront() {
    await draw("front");
    places.clear();
    for (const trace of chart.data) {
      (trace.customdata || []).forEach((row, index) => places.set(row, [trace.x[index], trace.y[index]]));
    }
    const ring = { size: 20, symbol: "circle-open", color: ink(), line: { width: 2.5 } };
    await Plotly.addTraces(chart, { x: [], y: [], mode: "markers", marker: ring, hoverinfo: "skip", showlegend: false });
  }

  // -- the network that is shown ----------------------------------------------------------------------------------
  const FIRST = 6; // numbers that are shown at once
  const numbers = document.getElementById("picked-numbers");
  const more = document.getElementById("picked-more");
  const drawing = document.getElementById("picked-drawing");
  const download = document.getElementById("picked-download");
  const command = document.getElementById("picked-command");
  const copy = document.getElementById("picked-copy");
  let current = null;

  async function show(row) {
    current = row;
    const digest = word("digest", row);
    document.getElementById("picked-title").textContent = "Network " + digest;
    numbers.replaceChildren();
    more.replaceChildren();
    data.details.forEach((name, index) => {
      const term = document.createElement("dt");
      const value = document.createElement("dd");
      term.textContent = data.labels[index];
      value.textContent = word(name, row);
      (index < FIRST ? numbers : more).append(term, value);
    });
    command.textContent = data.commands[word("run", row)] + " --digest " + digest;
    const time = word("retrain", row);
    byId("picked-time").textContent = data.training + (time ? ": " + time + " on a machine like that of the search." : ".");
    for (const element of document.querySelectorAll("[data-row]")) {
      element.classList.toggle("chosen", Number(element.dataset.row) === row);
    }
    const place = places.get(row);
    Plotly.restyle(chart, { x: [place ? [place[0]] : []], y: [place ? [place[1]] : []] }, [chart.data.length - 1]);
    const network = Object.hasOwn(data.networks, digest) ? JSON.parse(await unpacked(data.networks[digest])) : null;
    if (current !== row) return; // another one was chosen meanwhile
    download.hidden = !network;
    if (download.href) URL.revokeObjectURL(download.href);
    download.removeAttribute("href");
    if (network) {
      const content = JSON.stringify(network.genotype, null, 1) + "\n";
      download.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
      download.download = digest + ".json";
    }
    if (network && network.drawing) {
      // Written by this package from checked data, names escaped; scripts in it would not run in any case.
      const parsed = new DOMParser().parseFromString(network.drawing, "text/html");
      drawing.replaceChildren(...recoloured(parsed.body).childNodes);
    } else {
      drawing.textContent = "Drawings are embedded for networks of the front, as far as there is room. This one is the file " +
        "genotypes/" + digest + ".json of its run folder.";
    }
  }

  // -- budgets ----------------------------------------------------------------------------------------------------
  // As on the command line: a share is at most 1 or has its percent sign, and other numbers have none.
  const factors = { "": 1, "k": 1e3, "m": 1e6, "g": 1e9, "%": 0.01 };
  const form = /^((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?\s*([kmg%]?)$/i;
  function parsed(text, isShare) {
    const match = form.exec(text);
    const [, digits, power, unit] = match || [];
    const value = match ? Number(digits.replaceAll(",", "") + (power || "")) * factors[unit.toLowerCase()] : Infinity;
    const example = isShare ? "write for example 5% or 0.05." : "write for example 30M, 1.5M or 700k.";
    if (!Number.isFinite(value)) return { refused: "not a number: " + example };
    if (!isShare && unit === "%") return { refused: "a share, but this is a count: " + example };
    if (isShare && unit !== "" && unit !== "%") return { refused: "a count, but this is a share of images: " + example };
    if (isShare && value > 1) return { refused: "more than all images: write " + (unit ? "at most 100%." : text + "%.") };
    return { limit: value };
  }
  const inputs = [...document.querySelectorAll("input[data-budget]")];
  const answer = document.getElementById("budget-answer");
  function pick() {
    const limits = [], refusals = [];
    for (const input of inputs) {
      const text = input.value.trim();
      const { limit, refused } = text === "" ? {} : parsed(text, "share" in input.dataset);
      input.setAttribute("aria-invalid", String(refused !== undefined));
      if (refused !== undefined) refusals.push("\u201c" + text + "\u201d is " + refused);
      if (limit !== undefined) limits.push([input.dataset.budget, limit]);
    }
    if (refusals.length) { answer.textContent = refusals.join(" "); return; }
    if (!limits.length) { answer.textContent = ""; return; }
    // Of what keeps the budgets the lowest error is best, then the fewest MACs; so it is on the front in any case.
    const { error, macs } = data.numbers;
    let best = null;
    for (const row of data.front) {
      if (limits.some(([name, limit]) => !(data.numbers[name][row] <= limit))) continue;
      if (best === null || error[row] < error[best] || (error[row] === error[best] && macs[row] < macs[best])) best = row;
    }
    if (best === null) {
      answer.textContent = "No network keeps this budget.";
    } else {
      answer.textContent = "Best within it: proxy error " + word("error", best) + ", " + word("macs", best) + " MACs, " +
        word("params", best) + " parameters.";
      show(best);
    }
  }

  if (chart) {
    await drawFront();
    mark("front");
    onClick(chart);
    for (const element of document.querySelectorAll("button[data-row]")) {
      element.addEventListener("click", () => {
        show(Number(element.dataset.row));
        chart.scrollIntoView({ block: "nearest" });
      });
    }
    for (const input of inputs) input.addEventListener("input", pick);
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(command.textContent);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(command); // a page from a file may not write: then the reader copies
        copy.textContent = "Selected";
      }
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
    await show(data.first);
  }
  for (const element of document.querySelectorAll(".chart[data-later]")) watcher.observe(element);
  // Of a group one chart is in view; the watcher draws a chart when it is first shown.
  for (const view of document.querySelectorAll(".view")) {
    view.addEventListener("click", () => {
      for (const other of view.parentElement.children) {
        other.setAttribute("aria-pressed", String(other === view));
        byId("panel-" + other.dataset.view).hidden = other !== view;
      }
      if (drawn.has(view.dataset.view)) Plotly.Plots.resize(byId("chart-" + view.dataset.view));
    });
  }

  async function setTheme(dark) {
    isDark = dark;
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    button.textContent = dark ? "Light" : "Dark";
    for (const name of [...drawn]) {
      if (name !== "front") draw(name);
    }
    if (chart) {
      await drawFront();
      await show(current);
    }
  }
  button.addEventListener("click", () => setTheme(!isDark));
  button.textContent = isDark ? "Light" : "Dark";
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  window.addEventListener("beforeprint", () => {
    for (const panel of document.querySelectorAll(".panel")) panel.hidden = false;
    for (const name of Object.keys(data.figures)) if (!drawn.has(name)) draw(name);
  });
  mark("ready");
})();

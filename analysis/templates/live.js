"use strict";
document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
const LABELS = JSON.parse(document.getElementById("labels").textContent);
const RELOAD_MS = 2000;
const STALE_SECONDS = 120;
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
let last = null;

const percent = (share) => (100 * share).toFixed(2) + "%";
const whole = (number) => Math.round(number).toLocaleString("en-US");

function short(number) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (number >= size) return Number((number / size).toPrecision(3)) + unit;
  }
  return String(Number(number.toPrecision(3)));
}

function duration(seconds) {
  if (seconds < 90) return Math.round(seconds) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  if (seconds < 172800) return (seconds / 3600).toFixed(1) + " h";
  return (seconds / 86400).toFixed(1) + " days";
}

// Every text from the run goes in as text: no name can become markup.
function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function drawStatus() {
  if (!last) return;
  const age = Math.max(0, Date.now() / 1000 - last.unix_time);
  const isRunning = last.state === "running";
  const isStale = isRunning && age > STALE_SECONDS;
  byId("status").className = isStale ? "stale" : "";
  byId("status").textContent = isRunning
    ? `Running for ${duration(last.elapsed + (isStale ? 0 : age))}` +
      (last.left === null ? "" : `, about ${duration(Math.max(0, last.left - age))} left`) +
      `; numbers of ${duration(age)} ago` + (isStale ? ": has the command stopped?" : ".")
    : `The command has ended (${last.state}) after ${duration(last.elapsed)}.`;
}

function drawTiles() {
  const counts = Object.entries(last.counts).map(([state, count]) => `${count} ${state}`).join(", ");
  const tiles = [
    [`${last.counts.finished || 0} / ${last.num_trials}`, `trials done (${counts})`],
    [whole(last.num_snapshots), "snapshots"],
    [whole(last.num_front), "on the front"],
    [last.hypervolume.toFixed(4), LABELS.hypervolume.label.toLowerCase()],
  ];
  byId("tiles").replaceChildren(...tiles.map(([number, text]) => {
    const tile = element("div", "tile");
    tile.append(element("b", "", number), element("span", "", text));
    return tile;
  }));
}

function linearTicks(top, count) {
  const raw = top / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  return Array.from({length: Math.floor(top / step + 1e-9) + 1}, (_, index) => index * step);
}

function logTicks(low, high, factors) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of factors) {
      const tick = factor * 10 ** power;
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  }
  return ticks;
}

function staircase() {
  const steps = [];
  for (const point of last.front) {  // from the cheapest on
    if (!steps.length || point.error < steps[steps.length - 1].error) steps.push(point);
  }
  return steps;
}

function drawChart() {
  const svg = byId("chart");
  const {width, height} = svg.getBoundingClientRect();
  const box = {left: 64, right: width - 12, top: 10, bottom: height - 52};
  svg.replaceChildren();
  const points = last.cloud.concat(last.front.map((point) => [point.macs, point.error])).filter(([macs]) => macs > 0);
  if (!points.length) {
    svg.append(shape("text", {x: width / 2, y: height / 2, "text-anchor": "middle"}, "No network has been recorded yet."));
    return;
  }
  let low = Infinity, high = 0, top = 0;
  for (const [macs, error] of points) {
    low = Math.min(low, macs);
    high = Math.max(high, macs);
    top = Math.max(top, error);
  }
  low *= 0.93;
  high *= 1.07;
  top = Math.max(top * 1.05, 0.01);
  const x = (macs) => box.left + (box.right - box.left) * Math.log(macs / low) / Math.log(high / low);
  const y = (error) => box.bottom - (box.bottom - box.top) * error / top;
  for (const tick of linearTicks(top, 5)) {
    svg.append(shape("line", {class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick)}));
    const text = Number((100 * tick).toPrecision(3)) + "%";
    svg.append(shape("text", {x: box.left - 8, y: y(tick) + 4, "text-anchor": "end"}, text));
  }
  // Within less than a decade 1, 2 and 5 would leave the axis nearly empty.
  const coarse = logTicks(low, high, [1, 2, 5]);
  const ticks = coarse.length > 2 ? coarse : logTicks(low, high, [1, 1.5, 2, 3, 4, 5, 6, 8]);
  for (const tick of ticks) {
    svg.append(shape("line", {class: "grid", x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom}));
    svg.append(shape("text", {x: x(tick), y: box.bottom + 18, "text-anchor": "middle"}, short(tick)));
  }
  svg.append(shape("path", {class: "axis", fill: "none", d: `M${box.left},${box.top}V${box.bottom}H${box.right}`}));
  const middle = (box.left + box.right) / 2;
  svg.append(shape("text", {class: "title", x: middle, y: height - 10, "text-anchor": "middle"}, LABELS.macs.axis));
  const turn = `translate(16,${(box.top + box.bottom) / 2}) rotate(-90)`;
  svg.append(shape("text", {class: "title", transform: turn, "text-anchor": "middle"}, LABELS.error.label));
  for (const [macs, error] of last.cloud) {
    svg.append(shape("circle", {class: "cloud", cx: x(macs), cy: y(error), r: 3.5}));
  }
  const steps = staircase();
  const path = steps.map((point, index) => (index ? `H${x(point.macs)}V${y(point.error)}` : `M${x(point.macs)},${y(point.error)}`));
  svg.append(shape("path", {class: "line", d: path.join("")}));
  for (const point of last.front) {
    const mark = shape("circle", {class: "front", cx: x(point.macs), cy: y(point.error), r: 6});
    mark.append(shape("title", {}, [
      `${LABELS.error.label} ${percent(point.error)}, ${LABELS.macs.label} ${whole(point.macs)}`,
      `${LABELS.params.label} ${whole(point.params)}, ${LABELS.num_operations.label} ${point.num_operations}`,
      `${point.trial}, ${LABELS.step.label.toLowerCase()} ${point.step}`,
      point.digest,
    ].join("\n")));
    svg.append(mark);
  }
}

function drawTrials() {
  const names = ["Trial", "Varies", "", LABELS.epoch.label, LABELS.num_operations.label, LABELS.macs.label,
    LABELS.proxy_accuracy.label, "On the front", "Left"];
  const head = element("tr");
  head.append(...names.map((name, index) => element("th", index > 2 ? "number" : "", name)));
  byId("head").replaceChildren(head);
  byId("trials").replaceChildren(...last.trials.map((trial) => {
    const row = element("tr", trial.state);
    const bar = element("td", "bar"), track = element("div", "track"), fill = element("div");
    fill.style.width = percent(trial.share);
    track.append(fill);
    bar.append(track);
    const left = trial.state !== "running" ? trial.state : trial.left === null ? "" : duration(trial.left);
    row.append(
      element("td", "", trial.trial),
      element("td", "varies", trial.varies),
      bar,
      element("td", "number", `${trial.epoch}/${trial.epochs}`),
      element("td", "number", trial.num_operations),
      element("td", "number", trial.macs === null ? "" : short(trial.macs)),
      element("td", "number", trial.proxy_accuracy === null ? "" : percent(trial.proxy_accuracy)),
      element("td", "number", trial.on_front || ""),
      element("td", "number", left),
    );
    return row;
  }));
  const rest = last.num_trials - last.trials.length;
  byId("more").textContent = rest ? `and ${whole(rest)} more` : "";
}

function drawRun(picture) {
  if (last && last.unix_time === picture.unix_time && last.state === picture.state) return;
  last = picture;
  drawStatus();
  drawTiles();
  drawChart();
  drawTrials();
}

// A page that was opened from a folder may not fetch, but a script element may load a file beside it.
function reload() {
  const script = document.createElement("script");
  script.src = `live.js?${Date.now()}`;
  script.onload = script.onerror = () => {
    script.remove();
    drawStatus();
    setTimeout(reload, !last || last.state === "running" ? RELOAD_MS : 5 * RELOAD_MS);  // it may be resumed
  };
  document.head.append(script);
}

window.addEventListener("resize", () => last && drawChart());
reload();

// Draws the live charts of the overview as SVG, from the JSON of /console/series, every ten seconds.
"use strict";

const EVERY_MS = 10000;
const WIDTH = 400, HEIGHT = 140, TOP = 6, BOTTOM = 4;
const SVG = "http://www.w3.org/2000/svg";
const area = document.getElementById("chart-area");
const language = document.documentElement.lang;
const number = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(language, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZone: area.dataset.zone,
});

const VALUES = {
  queries: [point => point.queries / Math.max(point.seconds, 0.001)],
  blocked: [point => (point.queries ? 100 * point.blocked / point.queries : null)],
  latency: [point => point.here_ms[1], point => point.upstream_ms[1]],
  names: [point => point.names],
};

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// The pieces of a line: a value that is missing interrupts it.
function pieces(values) {
  const found = [[]];
  values.forEach((value, index) => {
    if (value === null) found.push([]);
    else found[found.length - 1].push([index, value]);
  });
  return found.filter(piece => piece.length);
}

function draw(figure, points) {
  const svg = figure.querySelector("svg"), unit = figure.dataset.unit;
  const series = VALUES[figure.dataset.chart].map(value => points.map(value));
  const known = series.flat().filter(value => value !== null);
  const isCount = figure.dataset.chart === "names";
  const highest = Math.max(...known, unit === "%" ? 1 : 0.001), lowest = isCount ? Math.min(...known) : 0;
  const span = Math.max(highest - lowest, isCount ? Math.max(highest * 0.02, 2) : 0.001);
  const base = isCount ? lowest - (span - (highest - lowest)) / 2 : 0;
  const x = index => (points.length < 2 ? WIDTH : index * WIDTH / (points.length - 1));
  const y = value => HEIGHT - BOTTOM - (value - base) / span * (HEIGHT - TOP - BOTTOM);
  const parts = [0, 0.5, 1].map(share => {
    const at = TOP + share * (HEIGHT - TOP - BOTTOM);
    return element("line", { class: "grid-line", x1: 0, x2: WIDTH, y1: at, y2: at });
  });
  series.forEach((values, index) => {
    for (const piece of pieces(values)) {
      const first = piece[0], last = piece[piece.length - 1];
      const dots = piece.length > 1 ? piece : [[Math.max(first[0] - 0.5, 0), first[1]], first];
      const line = dots.map(([at, value]) => `${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("L");
      if (index === 0 && !isCount) {
        parts.push(element("path", { class: "area", d: `M${line}L${x(last[0])} ${HEIGHT - BOTTOM}L${x(dots[0][0])} ${HEIGHT - BOTTOM}Z` }));
      }
      parts.push(element("path", { class: index ? "line second" : "line", d: `M${line}` }));
    }
  });
  svg.replaceChildren(...parts);
  const latest = series[0].filter(value => value !== null).pop();
  const shown = latest === undefined ? "–" : `${number.format(latest)}${unit === "" ? "" : ` ${unit}`}`;
  figure.querySelector(".now").textContent = shown;
  figure.querySelector(".from").textContent = points.length ? clock.format(new Date(points[0].at)) : "";
  figure.querySelector(".to").textContent = known.length ? `max ${number.format(highest)}${unit === "" ? "" : ` ${unit}`}` : "";
  const name = figure.querySelector("figcaption").firstChild.textContent.trim();
  svg.setAttribute("aria-label", `${name}: ${shown}`);
}

function fill(points) {
  const body = document.querySelector("#chart-table tbody");
  const cell = value => (value === null ? "–" : number.format(value));
  const rows = points.slice(-60).reverse().map(point => {
    const row = document.createElement("tr");
    const texts = [
      clock.format(new Date(point.at)), cell(VALUES.queries[0](point)), number.format(point.blocked),
      cell(point.here_ms[1]), cell(point.upstream_ms[1]), number.format(point.names),
    ];
    texts.forEach((text, index) => {
      const data = document.createElement("td");
      data.textContent = text;
      if (index) data.className = "right";
      row.append(data);
    });
    return row;
  });
  body.replaceChildren(...rows);
}

async function refresh() {
  if (document.hidden) return;
  try {
    const response = await fetch(area.dataset.source, { cache: "no-store", credentials: "same-origin" });
    if (response.status === 401) { clearInterval(timer); return; }
    if (!response.ok) return;
    const points = (await response.json()).recent;
    if (!points.length) return;
    area.hidden = false;
    document.getElementById("no-charts").hidden = true;
    area.querySelectorAll("[data-chart]").forEach(figure => draw(figure, points));
    fill(points);
    area.dataset.points = points.length;
  } catch (error) {
    // The server restarts, or the network is away: the next attempt is in ten seconds.
  }
}

const timer = setInterval(refresh, EVERY_MS);
document.addEventListener("visibilitychange", refresh);
refresh();

// A line chart of the last minute, in SVG, for a handful of series.

import { shape } from "./elements.js";
import { significant } from "./numbers.js";

export const SPAN = 60_000; // milliseconds from the left edge to the right
const GAP = 8_000; // a longer gap breaks the line
const MARGIN = { left: 46, right: 8, top: 10, bottom: 22 };

/**
 * Draws into `svg`: `series` is `[{tone, points: [{at, value, high}]}]`, `at` in the clock of
 * `now`; `high` is the upper edge of a band and may be left out. The vertical axis begins at 0.
 */
export function drawChart(svg, series, now) {
  const width = svg.clientWidth || 400;
  const height = svg.clientHeight || 176;
  const inner = {
    width: width - MARGIN.left - MARGIN.right,
    height: height - MARGIN.top - MARGIN.bottom,
  };
  const recent = series.map(({ tone, points }) => ({
    tone,
    points: points.filter(({ at }) => now - at <= SPAN),
  }));
  const highest = Math.max(0, ...recent.flatMap(({ points }) => points.map((p) => p.high ?? p.value)));
  const { step, top } = scale(highest);
  const x = (at) => MARGIN.left + inner.width * (1 - (now - at) / SPAN);
  const y = (value) => MARGIN.top + inner.height * (1 - value / top);

  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(...axes(width, height, step, top, y));
  for (const { tone, points } of recent) {
    const group = shape("g", { class: tone });
    for (const run of runs(points)) {
      const band = run.every(({ high }) => high !== undefined);
      if (band && run.length > 1) {
        const upper = run.map((p) => `${x(p.at).toFixed(1)},${y(p.high).toFixed(1)}`);
        const lower = run.map((p) => `${x(p.at).toFixed(1)},${y(p.value).toFixed(1)}`).reverse();
        group.append(shape("polygon", { class: "band", points: [...upper, ...lower].join(" ") }));
      }
      if (run.length > 1) {
        const line = run.map((p) => `${x(p.at).toFixed(1)},${y(p.value).toFixed(1)}`);
        group.append(shape("polyline", { class: "line", points: line.join(" ") }));
      }
      const last = run[run.length - 1];
      group.append(shape("circle", { class: "dot", cx: x(last.at), cy: y(last.value), r: 3 }));
    }
    svg.append(group);
  }
}

function axes(width, height, step, top, y) {
  const marks = [];
  const [x1, x2] = [MARGIN.left, width - MARGIN.right];
  for (let value = 0; value <= top * 1.001; value += step) {
    marks.push(
      shape("line", { class: "grid", x1, x2, y1: y(value), y2: y(value) }),
      shape("text", { x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, tick(value)),
    );
  }
  marks.push(
    shape("text", { x: MARGIN.left, y: height - 4 }, "a minute ago"),
    shape("text", { x: width - MARGIN.right, y: height - 4, "text-anchor": "end" }, "now"),
  );
  return marks;
}

function tick(value) {
  return Number.isInteger(value) ? value.toLocaleString("en") : significant(value).replace(/0+$/, "");
}

/** A round step (1, 2 or 5 times a power of ten) of which two to four cover `highest`. */
function scale(highest) {
  const least = (highest || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= least);
  return { step, top: step * Math.max(1, Math.ceil(highest / step)) };
}

/** The points of each line: a line breaks where nothing was measured for a while. */
function runs(points) {
  const found = [];
  points.forEach((point, place) => {
    if (place && point.at - points[place - 1].at <= GAP) found[found.length - 1].push(point);
    else found.push([point]);
  });
  return found;
}

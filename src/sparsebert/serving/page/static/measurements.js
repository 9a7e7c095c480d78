// What was measured in the last minute: two charts, their legend and a table.

import { drawChart, SPAN } from "./chart.js";
import { byId, element, shape } from "./elements.js";
import { duration, median, quantile, significant, whole } from "./numbers.js";

const MEASURES = [
  { name: "Median", where: "in the server", value: "middle", show: duration, ratio: true },
  { name: "99th percentile", where: "in the server", value: "slowest", show: duration, ratio: true },
  { name: "Median", where: "round trip", value: "round", show: duration, ratio: true },
  { name: "Texts per second", where: "", value: "rate", show: significant, ratio: true },
  { name: "Answers", where: "", value: "answers", show: whole, ratio: false },
  { name: "Refused", where: "", value: "refused", show: whole, ratio: false },
];
const SERVER = { tone: "server", title: "all clients of the server" };

export class Measurements {
  constructor(models) {
    this.models = models;
    this.turns = []; // of the last minute
    this.rates = []; // {at, value}: texts per second of the whole server
    this.drawLegend();
    this.draw();
  }

  /** A turn of `load.js`. */
  add(turn) {
    this.turns.push(turn);
    this.draw();
  }

  /** The times of a question without load: they say nothing about throughput (no `seconds`). */
  addAnswers(model, all) {
    const [times, rounds] = ["server", "round"].map((name) => all.map((each) => each[name]));
    this.add({ model, at: performance.now(), times, rounds, texts: 0, seconds: 0, refused: 0 });
  }

  addRate(rate) {
    this.rates.push(rate);
    this.draw();
  }

  draw() {
    const now = performance.now();
    this.turns = this.turns.filter(({ at }) => now - at <= SPAN);
    this.rates = this.rates.filter(({ at }) => now - at <= SPAN);
    const answered = this.turns.filter(({ times }) => times.length);
    const latency = this.models.map((model) => ({
      tone: model.tone,
      points: answered
        .filter((turn) => turn.model === model)
        .map(({ at, times }) => ({ at, value: median(times), high: quantile(times, 0.99) })),
    }));
    const throughput = this.models.map((model) => ({
      tone: model.tone,
      points: answered
        .filter((turn) => turn.model === model && turn.seconds)
        .map(({ at, texts, seconds }) => ({ at, value: texts / seconds })),
    }));
    drawChart(byId("latency"), latency, now);
    drawChart(byId("throughput"), [{ tone: SERVER.tone, points: this.rates }, ...throughput], now);
    this.drawTable();
  }

  drawTable() {
    const columns = this.models.map((model) => summary(model, this.turns));
    const measured = columns.filter(({ answers }) => answers);
    const heads = ["The last minute", ...columns.map(({ title }) => title)];
    if (columns.length > 1) heads.push("ratio");
    byId("figures").replaceChildren(
      element("thead", {}, element("tr", {}, ...heads.map(headCell))),
      element("tbody", {}, ...MEASURES.map((measure) => tableRow(measure, columns))),
    );
    const latency = measured.map(({ title, middle, slowest }) =>
      `${title}: median ${duration(middle)}, 99th percentile ${duration(slowest)}`);
    const rates = measured
      .filter(({ rate }) => rate)
      .map(({ title, rate }) => `${title}: ${whole(rate)} texts per second`);
    describe("latency", "Latency in the last minute", latency);
    describe("throughput", "Throughput in the last minute", rates);
  }

  drawLegend() {
    const entries = [...this.models, SERVER].map(({ tone, title }) =>
      element(
        "li",
        { class: tone },
        shape(
          "svg",
          { viewBox: "0 0 28 10", "aria-hidden": "true" },
          shape("path", { class: "line", d: "M1 5H27" }),
        ),
        title,
      ));
    byId("legend").replaceChildren(...entries);
  }
}

function summary(model, turns) {
  const own = turns.filter((turn) => turn.model === model);
  const times = own.flatMap((turn) => turn.times);
  const timed = own.filter(({ seconds }) => seconds);
  const seconds = timed.reduce((sum, turn) => sum + turn.seconds, 0);
  return {
    title: model.title,
    answers: times.length,
    refused: own.reduce((sum, turn) => sum + turn.refused, 0),
    middle: median(times),
    slowest: quantile(times, 0.99),
    round: median(own.flatMap((turn) => turn.rounds)),
    rate: seconds ? timed.reduce((sum, turn) => sum + turn.texts, 0) / seconds : null,
  };
}

function headCell(name) {
  return element("th", { scope: "col" }, name);
}

function tableRow({ name, where, value, show, ratio }, columns) {
  const values = columns.map((column) => column[value]);
  const cells = values.map((each) => (each === null ? "–" : show(each)));
  if (columns.length > 1) {
    const [ours, theirs] = values;
    cells.push(ratio && ours && theirs ? (ours / theirs).toFixed(2) : "");
  }
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, name, " ", element("span", {}, where)),
    ...cells.map((text) => element("td", {}, text)),
  );
}

function describe(id, name, parts) {
  const text = parts.length ? `${name}. ${parts.join("; ")}.` : `${name}: nothing measured yet.`;
  byId(id).setAttribute("aria-label", text);
}

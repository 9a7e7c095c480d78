// A model's card: its time, its answer, and the request that produced it.

import { element, shape } from "./elements.js";
import { duration, significant } from "./numbers.js";
import { curl } from "./server.js";

const SHOWN = 4000; // characters of a response: an embedding of a large model has 10,000

/** A card in `parent` for one model. `copy(command, shown)` returns whether it was copied. */
export function makeCard(parent, model, copy) {
  const time = element("div", { class: "time" });
  const answer = element("div", { class: "answer" });
  const command = scrolled("pre", "The request as a curl command");
  const response = scrolled("pre", "The response");
  const button = element("button", { type: "button", disabled: true }, "Copy as curl");
  const details = element(
    "details",
    {},
    element("summary", {}, "Request and response"),
    command,
    response,
  );
  const node = element(
    "article",
    { class: `card ${model.tone}`, "aria-label": model.title },
    element("h3", {}, model.title, " ", element("span", { class: "soft" }, model.size)),
    time,
    answer,
    element("div", { class: "row" }, button),
    details,
  );
  const copied = element("span", { class: "soft", role: "status" });
  button.after(copied);
  button.addEventListener("click", async () => {
    details.open = true;
    const done = await copy(command.textContent, command);
    copied.textContent = done ? "Copied." : "Selected below: copy it from there.";
  });
  parent.append(node);

  /** Removes the answer; the request can still be copied. */
  function drop() {
    node.classList.remove("stale");
    for (const part of [time, answer, response]) part.replaceChildren();
  }

  return {
    drop,
    /** Shows the request of a new question; the old answer stays until there is a new one. */
    ask(request) {
      node.classList.add("stale");
      button.disabled = false;
      copied.textContent = "";
      command.textContent = curl(request);
    },
    show({ times, answer: given, reading, askings }) {
      node.classList.remove("stale");
      time.replaceChildren(...timeNodes(times));
      if (askings > 1) return; // the answer is already shown
      answer.replaceChildren(...draw(reading));
      response.textContent = shortened(JSON.stringify(given));
    },
    /** Empties the card, when there is no question. */
    clear() {
      drop();
      button.disabled = true;
      for (const part of [copied, command]) part.replaceChildren();
    },
  };
}

/** An element for content that may overflow: the keyboard can reach and scroll it. */
function scrolled(tag, name) {
  return element(tag, { class: "scrolled", tabindex: 0, role: "group", "aria-label": name });
}

function timeNodes({ model, server, round }) {
  return [
    element("b", {}, duration(model)),
    " in the model",
    element("span", {}, `${duration(server)} in the server · ${duration(round)} in total`),
  ];
}

function draw(reading) {
  const drawings = { bars: drawBars, value: drawValue, span: drawSpan, vector: drawVector };
  return drawings[reading.kind](reading);
}

function drawBars({ items }) {
  const list = element("ol", { class: "bars" });
  for (const { name, score, share } of items) {
    const filled = element("i");
    filled.style.setProperty("--share", `${100 * Math.min(1, Math.max(0, share))}%`);
    list.append(
      element(
        "li",
        {},
        element("span", { class: "name" }, name),
        element("span", { class: "score" }, score.toFixed(score > 0.999 && score < 1 ? 4 : 3)),
        element("span", { class: "bar", "aria-hidden": "true" }, filled),
      ),
    );
  }
  return [list];
}

function drawValue({ label, score }) {
  return [element("p", { class: "value" }, significant(score)), element("p", { class: "soft" }, label)];
}

function drawSpan({ text, score, before, marked, after }) {
  const context = scrolled("p", "The context");
  context.append(before, element("mark", {}, marked), after);
  return [
    element("p", { class: "span" }, text),
    element("p", { class: "soft" }, `score ${score.toFixed(3)}`),
    context,
  ];
}

/** One cell per value, more opaque for larger ones: blue above zero, orange below. */
function drawVector({ values }) {
  const columns = 32;
  const rows = Math.ceil(values.length / columns);
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  const viewBox = `0 0 ${columns} ${rows}`;
  const picture = shape("svg", { class: "vector", viewBox, "aria-hidden": "true" });
  values.forEach((value, place) => {
    picture.append(
      shape("rect", {
        x: place % columns,
        y: Math.floor(place / columns),
        width: 0.92,
        height: 0.92,
        "fill-opacity": (Math.abs(value) / largest).toFixed(3),
        class: value < 0 ? "negative" : null,
      }),
    );
  });
  const length = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  const shown = values.slice(0, 6).map((value) => value.toFixed(4));
  return [
    picture,
    element("p", { class: "numbers" }, `[${shown.join(", ")}${values.length > 6 ? ", …" : ""}]`),
    element("p", { class: "soft" }, `${values.length} numbers, length ${length.toFixed(3)}`),
  ];
}

function shortened(text) {
  if (text.length <= SHOWN) return text;
  return `${text.slice(0, SHOWN)}… (${text.length.toLocaleString("en")} characters)`;
}

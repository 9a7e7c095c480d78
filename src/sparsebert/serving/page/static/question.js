// The form: which task, its fields, and examples that fill them in.

import { byId, element } from "./elements.js";
import { examplesFor } from "./examples.js";
import { tasksFor } from "./tasks.js";

const PAUSE = 150; // milliseconds after the last keystroke until the question is asked

let typing = 0;

/**
 * Shows what `model` can be asked. `typed()` is called on each keystroke, `asked(task, values)` for
 * each new question.
 */
export function showTasks(model, { typed, asked }) {
  const tasks = tasksFor(model);
  const choices = tasks.map((task) => {
    const choice = element("input", { type: "radio", name: "task", value: task.id });
    choice.addEventListener("change", () => showTask(task, model, { typed, asked }));
    return element("label", {}, choice, element("span", {}, task.name));
  });
  byId("tasks").replaceChildren(byId("tasks").querySelector("legend"), ...choices);
  byId("tasks").hidden = tasks.length < 2;
  byId("tasks").querySelector("input").checked = true;
  showTask(tasks[0], model, { typed, asked });
}

function showTask(task, model, { typed, asked }) {
  const examples = examplesFor(task.id, model.labels);
  const ask = () => {
    clearTimeout(typing);
    asked(task, valuesOf(task));
  };
  const fill = (example) => {
    for (const { id } of task.fields) {
      const value = example[id] ?? "";
      byId(id).value = Array.isArray(value) ? value.join("\n") : value;
    }
    ask();
  };
  byId("fields").replaceChildren(...task.fields.map((field) => drawField(field, typed, ask)));
  byId("examples").replaceChildren(...examples.map((example) => exampleButton(example, fill)));
  byId("question").onsubmit = (event) => {
    event.preventDefault();
    ask();
  };
  fill(examples[0]);
}

function drawField({ id, label, rows, optional }, typed, ask) {
  const area = element("textarea", { id, rows, required: !optional, spellcheck: "false" });
  area.addEventListener("input", () => {
    typed();
    clearTimeout(typing);
    typing = setTimeout(ask, PAUSE);
  });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask();
  });
  return element("div", {}, element("label", { for: id }, label), area);
}

function exampleButton(example, fill) {
  const button = element("button", { type: "button" }, example.name);
  button.addEventListener("click", () => fill(example));
  return button;
}

function valuesOf(task) {
  return Object.fromEntries(task.fields.map(({ id }) => [id, byId(id).value]));
}

// The loaded models, as the server's /info describes them, and which of them are asked.

import { counted, significant, whole } from "./numbers.js";
import { fetchRoute } from "./server.js";

/**
 * All loaded models, in the server's order: `{name, head, labels, routes, sparse, limit, storage,
 * size, facts}`. `limit` is the maximum number of tokens that a model reads.
 */
export async function loadedModels() {
  const info = await (await fetchRoute("info")).json();
  return info.models.map((model) => ({
    name: model.model_id,
    head: model.head,
    labels: model.labels ?? [],
    routes: model.routes,
    sparse: model.sparse,
    limit: model.max_input_length,
    storage: model.storage,
    size: `${significant(model.bytes / 1e6)} MB`,
    facts: [
      model.head.replaceAll("-", " "),
      `up to ${whole(model.max_input_length)} tokens`,
      counted(model.threads, "thread"),
      model.instruction_set,
    ].join(" · "),
  }));
}

/** Other models with the same kind of answer: first dense ones for a sparse model, or vice versa. */
export function peers(model, models) {
  const kind = ({ head, labels }) => JSON.stringify([head, labels]);
  const others = models.filter((other) => other !== model && kind(other) === kind(model));
  return others.sort((left, right) => (right.sparse !== model.sparse) - (left.sparse !== model.sparse));
}

/** `model` and the one beside it, if any: sparse first, with tones and distinct titles. */
export function sideBySide(model, beside) {
  const pair = beside ? [model, beside] : [model];
  pair.sort((left, right) => right.sparse - left.sparse);
  const alike = beside && model.storage === beside.storage;
  pair.forEach((each, place) => {
    each.tone = place ? "second" : "first";
    each.title = alike ? each.name : each.storage;
  });
  return pair;
}

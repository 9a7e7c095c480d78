// The loaded models, from what the server's /info says, and which of them are asked.

import { counted, significant, whole } from "./numbers.js";
import { fetchRoute } from "./server.js";

/**
 * All loaded models, the server's first one first: `{name, head, labels, routes, sparse, limit,
 * storage, size, facts}`. `limit` counts the tokens that a model reads.
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
      `reads ${whole(model.max_input_length)} tokens`,
      counted(model.threads, "thread"),
      model.instruction_set,
    ].join(" · "),
  }));
}

/** The models that give the same kind of answer as `model`, first those that are not sparse too. */
export function peers(model, models) {
  const kind = ({ head, labels }) => JSON.stringify([head, labels]);
  const others = models.filter((other) => other !== model && kind(other) === kind(model));
  return others.sort((left, right) => (right.sparse !== model.sparse) - (left.sparse !== model.sparse));
}

/** `model` and what stands beside it, if anything: sparse first, with tones and unlike titles. */
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

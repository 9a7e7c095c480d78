// Asks each model one question, a few times, and summarises the times.

import { median } from "./numbers.js";
import { ask } from "./server.js";

const ROUNDS = 7; // a single time is too noisy to compare with another model's
const PATIENCE = 1500; // milliseconds: slow models are asked less often

/**
 * Asks the models one after the other, so that they do not compete for the cores; two models are
 * asked a few more times, in turn. Calls `show(place, result)` after each answer with the model's
 * `{answer, times, all, askings}`, where `times` are the medians of `all`, and returns the results.
 */
export async function askEach(models, request, signal, show) {
  const started = performance.now();
  const results = models.map(() => ({ all: [] }));
  const rounds = models.length > 1 ? ROUNDS : 1;
  for (let round = 0; round < rounds; round += 1) {
    for (const [place, model] of models.entries()) {
      const { answer, times } = await ask(request(model), signal);
      const result = results[place];
      result.all.push(times);
      result.answer = answer;
      result.times = medians(result.all);
      result.askings = result.all.length;
      show(place, result);
    }
    if (performance.now() - started > PATIENCE) break;
  }
  return results;
}

function medians(all) {
  const names = ["round", "server", "model"];
  return Object.fromEntries(names.map((name) => [name, median(all.map((times) => times[name]))]));
}

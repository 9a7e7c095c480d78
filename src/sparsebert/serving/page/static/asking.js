// One question to each model, and what the times of a few askings come to.

import { median } from "./numbers.js";
import { ask } from "./server.js";

const ROUNDS = 7; // a single time says little beside another model's
const PATIENCE = 1500; // milliseconds: slow models are asked less often

/**
 * Asks the models one after the other, so that they do not compete for the cores. Two models are
 * asked in turn a few times more. `show(place, result)` gets each model's `{answer, times, all,
 * askings}`, `times` being the medians of `all`, whenever there is a new one; the results are
 * returned.
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

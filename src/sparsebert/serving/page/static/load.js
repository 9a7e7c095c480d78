// Asks the same question again and again, to show how long answers take with several requests at
// once. The models take turns, so that neither slows down the other.

import { ask } from "./server.js";

const TURN = 1000; // milliseconds
const LONGEST_WAIT = 5; // seconds, even if the server asks for more

/**
 * Asks until `signal` is aborted, with `atOnce` concurrent requests. `question(model)` returns each
 * turn's `{request, texts}`, where `texts` is the number of texts that the model reads for it.
 * After each turn, `tell` is called with `{model, at, times, rounds, texts, seconds, refused}`:
 * `times` and `rounds` are the milliseconds of each answer, in the server and for the round trip.
 * Refusals (429) are counted and followed by the pause that the server asks for; any other failure
 * is thrown.
 */
export async function keepAsking(models, { question, atOnce, signal, tell }) {
  while (!signal.aborted) {
    for (const model of models) {
      if (!signal.aborted) tell(await turn(model, question(model), atOnce, signal));
    }
  }
}

async function turn(model, { request, texts }, atOnce, signal) {
  const started = performance.now();
  const times = [];
  const rounds = [];
  let refused = 0;

  async function worker() {
    while (!signal.aborted && performance.now() - started < TURN) {
      try {
        const answered = await ask(request, signal);
        times.push(answered.times.server);
        rounds.push(answered.times.round);
      } catch (error) {
        if (error.name === "AbortError") return;
        if (error.status !== 429) throw error;
        refused += 1;
        await pause(Math.min(error.retryAfter || 0.1, LONGEST_WAIT));
      }
    }
  }

  await Promise.all(Array.from({ length: atOnce }, worker));
  const at = performance.now();
  // An aborted turn has dropped the requests in flight: it says nothing about throughput.
  const seconds = signal.aborted ? 0 : (at - started) / 1000;
  return { model, at, times, rounds, texts: texts * times.length, seconds, refused };
}

function pause(seconds) {
  return new Promise((resume) => setTimeout(resume, 1000 * seconds));
}

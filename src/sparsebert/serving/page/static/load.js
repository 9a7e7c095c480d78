// The same question again and again: how long answers take when the server has several at once.
// The models take turns, so that neither slows the other.

import { ask } from "./server.js";

const TURN = 1000; // milliseconds
const LONGEST_WAIT = 5; // seconds, whatever a server asks for

/**
 * Asks until `signal` is aborted, `atOnce` requests at a time; `question(model)` gives each turn's
 * `{request, texts}`, where `texts` is how many the model reads for it. After a turn `tell` gets
 * `{model, at, times, rounds, texts, seconds, refused}`: milliseconds in the server and from here
 * and back for each answer. Refusals (429) are counted, and waited for as the server says; any
 * other failure is thrown.
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
  // A turn that was cut short dropped what was under way: it says nothing of throughput.
  const seconds = signal.aborted ? 0 : (at - started) / 1000;
  return { model, at, times, rounds, texts: texts * times.length, seconds, refused };
}

function pause(seconds) {
  return new Promise((resume) => setTimeout(resume, 1000 * seconds));
}

// The server's own counters, read from its Prometheus metrics: they count the requests of all
// clients, not only of this page.

import { fetchRoute } from "./server.js";

const PERIOD = 2000; // milliseconds

/** Sums of the counters in a Prometheus text, over all their labels: `{name: value}`. */
export function sums(text) {
  const found = {};
  for (const line of text.split("\n")) {
    const [, name, value] = /^([a-zA-Z_:][\w:]*)(?:\{.*\})? (\S+)/.exec(line) ?? [];
    if (name && Number.isFinite(Number(value))) found[name] = (found[name] ?? 0) + Number(value);
  }
  return found;
}

/** Calls `tell({at, value})` with a counter's growth per second while the page is visible. */
export function watchRate(counter, tell) {
  let before = null;

  async function look() {
    if (document.hidden) {
      before = null;
      return;
    }
    try {
      const now = sums(await (await fetchRoute("metrics")).text())[counter];
      const at = performance.now();
      if (now === undefined) return;
      if (before && now >= before.count) {
        tell({ at, value: (1000 * (now - before.count)) / (at - before.at) });
      }
      before = { at, count: now };
    } catch {
      before = null; // the page's own requests report what is wrong
    }
  }

  look();
  setInterval(look, PERIOD);
}

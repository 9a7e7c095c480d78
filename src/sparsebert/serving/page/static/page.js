// The page: asks the models what is typed, and shows answers, tokens and times.

import { makeCard } from "./answers.js";
import { askEach } from "./asking.js";
import { byId, element } from "./elements.js";
import { keepAsking } from "./load.js";
import { Measurements } from "./measurements.js";
import { watchRate } from "./metrics.js";
import { loadedModels, peers, sideBySide } from "./models.js";
import { duration } from "./numbers.js";
import { showTasks } from "./question.js";
import { apiKey, ask, isUnauthorized, ServerError, useApiKey } from "./server.js";
import { agreement } from "./tasks.js";
import { showTokens } from "./tokens.js";

const QUIET = 800; // milliseconds without a new answer until the last one is read out

const TOKENIZE = { route: "tokenize", body: (texts) => ({ inputs: texts }) };

let loaded = []; // all models of the server
let models = []; // the one or two that are asked
let cards = [];
let question = null; // {task, values} of the fields, or null if something is missing
let measurements = null;
let asking = null; // the AbortController of the requests under way
let load = null; // that of "Keep asking"
let speaking = 0;

async function start() {
  try {
    loaded = await loadedModels();
  } catch (error) {
    if (isUnauthorized(error) && !apiKey()) askForKey("");
    else tell(error);
    return;
  }
  byId("key-form").hidden = true;
  byId("open-routes").hidden = Boolean(apiKey()); // links cannot send a key
  byId("choice").hidden = loaded.length < 2;
  byId("model").replaceChildren(...loaded.map(({ name }) => element("option", {}, name)));
  if (!measurements) watchRate("sparsebert_texts_total", (rate) => measurements.addRate(rate));
  chooseModel();
}

function chooseModel() {
  const model = loaded[byId("model").selectedIndex];
  const others = peers(model, loaded);
  const nothing = element("option", { value: "" }, "nothing");
  byId("beside").replaceChildren(...others.map(({ name }) => element("option", {}, name)), nothing);
  showModels();
}

function showModels() {
  const model = loaded[byId("model").selectedIndex];
  const beside = loaded.find(({ name }) => name === byId("beside").value);
  load?.abort();
  asking?.abort();
  models = sideBySide(model, beside);
  byId("title").textContent = models[0].name;
  byId("facts").textContent = models[0].facts;
  document.title = `${models[0].name} · sparsebert`;
  byId("cards").replaceChildren();
  cards = models.map((each) => makeCard(byId("cards"), each, copy));
  measurements = new Measurements(models);
  showTasks(model, { typed: dropAnswer, asked: askAll });
}

/** The request to one model for a question. */
function requestTo(model, { task, values }) {
  const body = task.body(values);
  return { route: task.route, body: model === loaded[0] ? body : { ...body, model: model.name } };
}

/** The question has changed: stops waiting for the answer to the old one. */
function dropAnswer() {
  asking?.abort();
  byId("answers").setAttribute("aria-busy", "true");
}

async function askAll(task, values) {
  dropAnswer();
  asking = new AbortController();
  question = task.missing(values) ? null : { task, values };
  byId("ask").disabled = !question;
  byId("keep-asking").disabled = !question && !load;
  byId("comparison").hidden = true;
  for (const [place, card] of cards.entries()) {
    if (question) card.ask(requestTo(models[place], question));
    else card.clear();
  }
  const { signal } = asking;
  if (question) await answer(question, signal);
  else showTokens([], 0);
  if (!signal.aborted) byId("answers").setAttribute("aria-busy", "false");
}

async function answer(asked, signal) {
  const { task, values } = asked;
  try {
    const request = (model) => requestTo(model, asked);
    const results = await askEach(models, request, signal, (place, result) => {
      if (result.askings === 1) result.reading = task.read(result.answer, values);
      cards[place].show(result);
    });
    results.forEach(({ all }, place) => measurements.addAnswers(models[place], all));
    compare(results);
    tell(null);
    speak(results);
    const cut = requestTo(models[0], { task: TOKENIZE, values: task.texts(values) });
    showTokens((await ask(cut, signal)).answer, task.windows ? Infinity : models[0].limit);
  } catch (error) {
    if (error.name === "AbortError") return;
    for (const card of cards) card.drop();
    showTokens([], 0);
    tell(error);
  }
}

function compare(results) {
  const line = byId("comparison");
  line.hidden = results.length < 2;
  if (line.hidden) return;
  const [ours, theirs] = results.map(({ times }) => times.model);
  const ratio = theirs / ours;
  const verdict =
    ratio >= 1
      ? `was ${ratio.toFixed(1)} times as fast`
      : `took ${(1 / ratio).toFixed(1)} times as long`;
  const [first, second] = models.map(({ title }) => title);
  const { askings } = results[0];
  const often = askings > 1 ? `, medians of ${askings} requests each` : "";
  line.replaceChildren(
    element("b", {}, `${first} ${verdict}`),
    ` as ${second}: ${duration(ours)} in the model against ${duration(theirs)}${often}. `,
    agreement(results[0].reading, results[1].reading),
  );
}

/** Reads the answer out, once the user has stopped typing. */
function speak(results) {
  clearTimeout(speaking);
  const said = results.map(({ reading, times }, place) => {
    const who = models.length > 1 ? `${models[place].title}: ` : "";
    return `${who}${reading.said} ${duration(times.model)}.`;
  });
  speaking = setTimeout(() => {
    byId("spoken").textContent = said.join(" ");
  }, QUIET);
}

/** Shows one sentence, or none; an error of the page itself also goes to the console. */
function tell(error) {
  byId("trouble").textContent = error?.message ?? "";
  if (error && isUnauthorized(error)) askForKey(error.message);
  if (error && !(error instanceof ServerError)) console.error(error);
}

function askForKey(message) {
  byId("key-form").hidden = false;
  byId("trouble").textContent = message;
  byId("key").focus();
}

/** Copies `command` and returns true; where that is not allowed, selects `shown` instead. */
async function copy(command, shown) {
  try {
    await navigator.clipboard.writeText(command);
    return true;
  } catch {
    // Browsers allow access to the clipboard only over HTTPS or on localhost.
    getSelection().selectAllChildren(shown);
    return false;
  }
}

async function toggleLoad() {
  if (load) {
    load.abort();
    return;
  }
  let latest = question; // replaced by what is typed in the meantime
  load = new AbortController();
  showLoad(true);
  tell(null);
  try {
    await keepAsking(models, {
      question: (model) => {
        latest = question ?? latest;
        return { request: requestTo(model, latest), texts: latest.task.weight(latest.values) };
      },
      atOnce: Number(byId("at-once").value),
      signal: load.signal,
      tell: (turn) => measurements.add(turn),
    });
  } catch (error) {
    tell(error);
  }
  load.abort();
  load = null;
  showLoad(false);
}

function showLoad(running) {
  const button = byId("keep-asking");
  button.textContent = running ? "Stop" : "Keep asking";
  button.classList.toggle("running", running);
  button.disabled = !running && !question;
  byId("at-once").disabled = running;
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const refused = useApiKey(byId("key").value.trim());
  byId("key").value = "";
  if (refused) askForKey(refused);
  else start();
});
byId("model").addEventListener("change", chooseModel);
byId("beside").addEventListener("change", showModels);
byId("keep-asking").addEventListener("click", toggleLoad);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) load?.abort(); // a forgotten tab must not keep a server busy
});
addEventListener("resize", () => measurements?.draw());
start();

// What a model can be asked. A task has the fields to fill in (`missing`: whether required ones are
// empty), the request's `body`, its `texts` for the tokenizer, how many texts the model reads
// (`weight`: a pair counts as one), whether long ones are read in `windows` instead of being
// truncated, and how to `read` the answer for `answers.js` to draw.

import { cosine, counted, significant } from "./numbers.js";

const TEXT = { id: "first", label: "Text", rows: 3 };

const COMPARE = {
  id: "compare",
  route: "similarity",
  name: "Compare",
  fields: [
    { id: "first", label: "Text", rows: 2 },
    { id: "many", label: "Texts to compare it with, one per line", rows: 5 },
  ],
  missing: ({ first, many }) => !first.trim() || !lines(many).length,
  body: ({ first, many }) => ({
    inputs: { source_sentence: first, sentences: lines(many) },
    parameters: { truncate: true },
  }),
  texts: ({ first, many }) => [first, ...lines(many)],
  weight: ({ many }) => 1 + lines(many).length,
  read: (scores, { many }) => {
    const texts = lines(many);
    return bars(scores.map((score, place) => ({ name: texts[place], score, share: score })));
  },
};

const RANK = {
  id: "rank",
  route: "rerank",
  name: "Rank",
  fields: [
    { id: "first", label: "Query", rows: 2 },
    { id: "many", label: "Documents to rank, one per line", rows: 5 },
  ],
  missing: COMPARE.missing,
  body: ({ first, many }) => ({ query: first, texts: lines(many), truncate: true }),
  texts: COMPARE.texts,
  weight: ({ many }) => lines(many).length,
  read: (ranks, { many }) => {
    const texts = lines(many);
    return bars(ranks.map(({ index, score }) => ({ name: texts[index], score, share: score })));
  },
};

const EMBED = {
  id: "embed",
  route: "embed",
  name: "Embed",
  fields: [TEXT],
  missing: ({ first }) => !first.trim(),
  body: ({ first }) => ({ inputs: first, truncate: true }),
  texts: ({ first }) => [first],
  weight: () => 1,
  read: ([values]) => {
    return { kind: "vector", values, said: `A vector of ${counted(values.length, "number")}.` };
  },
};

const CLASSIFY = {
  id: "classify",
  route: "predict",
  name: "Classify",
  fields: [
    TEXT,
    { id: "second", label: "Second text, if the model reads pairs", rows: 2, optional: true },
  ],
  missing: EMBED.missing,
  body: ({ first, second }) => ({ inputs: second.trim() ? [first, second] : first, truncate: true }),
  texts: ({ first, second }) => [first, second].filter((text) => text.trim()),
  weight: () => 1,
  read: (found) => {
    if (found.length > 1) {
      return bars(found.map(({ label, score }) => ({ name: label, score, share: score })));
    }
    const [{ label, score }] = found;
    return { kind: "value", label, score, said: `${label}: ${significant(score)}.` };
  },
};

const ANSWER = {
  id: "answer",
  route: "answer",
  name: "Answer",
  windows: true,
  fields: [
    { id: "first", label: "Question", rows: 2 },
    { id: "second", label: "Context to find the answer in", rows: 7 },
  ],
  missing: ({ first, second }) => !first.trim() || !second.trim(),
  body: ({ first, second }) => ({ inputs: { question: first, context: second } }),
  texts: ({ first, second }) => [first, second],
  weight: () => 1,
  read: ({ answer, start, end, score }, { second }) => {
    const characters = [...second]; // the server counts code points, JavaScript's strings do not
    return {
      kind: "span",
      text: answer,
      score,
      before: characters.slice(0, start).join(""),
      marked: characters.slice(start, end).join(""),
      after: characters.slice(end).join(""),
      said: `${answer}, score ${significant(score)}.`,
    };
  },
};

/** The tasks of a model, the most informative first. */
export function tasksFor({ routes }) {
  return [ANSWER, RANK, CLASSIFY, COMPARE, EMBED].filter(({ route }) => routes.includes(`/${route}`));
}

/** One sentence on how far two answers to the same question agree. */
export function agreement(first, second) {
  if (first.kind !== second.kind) return "";
  if (first.kind === "vector") {
    const angle = cosine(first.values, second.values);
    return angle === null ? "" : `The cosine of their vectors is ${angle.toFixed(3)}.`;
  }
  if (first.kind === "value") {
    return `The two values differ by ${significant(Math.abs(first.score - second.score))}.`;
  }
  const best = (reading) => (reading.kind === "span" ? reading.text : reading.items[0].name);
  return best(first) === best(second) ? "Both give the same answer." : "Their answers differ.";
}

function bars(items) {
  items.sort((left, right) => right.score - left.score);
  return { kind: "bars", items, said: `${items[0].name}: ${items[0].score.toFixed(2)}.` };
}

function lines(text) {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
}

// The tokens of each text, as the model's tokenizer splits it.

import { byId, element } from "./elements.js";
import { counted, whole } from "./numbers.js";

const SHOWN = 300; // tokens drawn; a long context has thousands

/**
 * `rows` has the tokens `{id, text, special, start, stop}` of each text. The model reads up to
 * `limit` of them, including special ones; those that it leaves out are struck through.
 */
export function showTokens(rows, limit) {
  const total = rows.reduce((sum, row) => sum + row.length, 0);
  const longest = Math.max(0, ...rows.map((row) => row.length));
  const note = longest > limit ? `; the model reads the first ${whole(limit)} of a text` : "";
  const within = rows.length > 1 ? ` in ${rows.length} texts` : "";
  byId("token-count").textContent = total ? `${whole(total)}${within}${note}` : "";

  let room = SHOWN;
  const lines = [];
  for (const row of rows) {
    if (room <= 0) break;
    const shown = row.slice(0, room);
    const cut = (place) => row.length > limit && place >= limit - 1 && place < row.length - 1;
    const nodes = shown.flatMap((token, place) => drawn(token, row[place + 1], cut(place)));
    lines.push(element("p", {}, ...nodes));
    room -= row.length;
  }
  if (total > SHOWN) {
    lines.push(element("p", { class: "soft" }, `and ${counted(total - SHOWN, "more token")}`));
  }
  byId("tokens").replaceChildren(...lines);
}

/** A token, followed by a gap where the text has one. */
function drawn({ id, text, special, stop }, next, cut) {
  const joined = !special && next?.start === stop;
  const kinds = ["token", special && "special", cut && "cut", joined && "joined"];
  const attributes = { class: kinds.filter(Boolean).join(" "), title: `token ${id}` };
  return [element("span", attributes, text), "\u200b"]; // where a line may break
}

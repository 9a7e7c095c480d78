// The tokens of each text, as the model's tokenizer cut it.

import { byId, element } from "./elements.js";
import { counted, whole } from "./numbers.js";

const SHOWN = 300; // tokens drawn; a long context has thousands

/** `rows`: for each text its tokens `{id, text, special, start, stop}`; `limit`: how many the model reads. */
export function showTokens(rows, limit) {
  const total = rows.reduce((sum, row) => sum + row.length, 0);
  const longest = Math.max(0, ...rows.map((row) => row.length));
  const cut = longest > limit ? `; the model reads ${whole(limit)} of a text and leaves out the rest` : "";
  const within = rows.length > 1 ? ` in ${rows.length} texts` : "";
  byId("token-count").textContent = total ? `${whole(total)}${within}${cut}` : "";

  let room = SHOWN;
  const lines = [];
  for (const row of rows) {
    if (room <= 0) break;
    lines.push(element("p", {}, ...row.slice(0, room).flatMap((token, place) => drawn(token, row[place + 1], place >= limit))));
    room -= row.length;
  }
  if (total > SHOWN) {
    lines.push(element("p", { class: "soft" }, `and ${counted(total - SHOWN, "more token")}`));
  }
  byId("tokens").replaceChildren(...lines);
}

/** A token; there is a gap after it where its text has one. */
function drawn({ id, text, special, stop }, next, cut) {
  const joined = !special && next?.start === stop;
  const kinds = ["token", special && "special", cut && "cut", joined && "joined"];
  return [element("span", { class: kinds.filter(Boolean).join(" "), title: `token ${id}` }, text), "\u200b"];
}

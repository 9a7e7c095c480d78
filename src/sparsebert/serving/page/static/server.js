// Requests to the server that sent this page: makes and times them, and explains failures.

const KEY = "sparsebert-api-key"; // in sessionStorage: gone when the tab is closed
const BASE = new URL(".", document.baseURI); // also works below a proxy's path prefix

/** A request that failed; the message is one sentence for the user. */
export class ServerError extends Error {
  constructor(message, status, retryAfter = 0) {
    super(message);
    this.status = status; // 0: there was no response at all
    this.retryAfter = retryAfter; // seconds
  }
}

export function apiKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

/** Stores a key for later requests, or returns a sentence on why it cannot be one. */
export function useApiKey(key) {
  if (/[^\x21-\x7e]/.test(key)) return "An API key must not contain spaces or non-ASCII characters.";
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
  return "";
}

export function isUnauthorized(error) {
  return error.status === 401;
}

function address(route) {
  return new URL(route, BASE).href;
}

/** The response to a GET, or ServerError. */
export function fetchRoute(route, signal) {
  return send(route, { signal });
}

/**
 * The answer to a POST, with times in milliseconds: `round` for the round trip and, as reported by
 * the server, `server` from receipt to answer and `model` in the engine. ServerError if there is no
 * answer.
 */
export async function ask({ route, body }, signal) {
  const started = performance.now();
  const response = await send(route, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  const answer = await read(response);
  const round = performance.now() - started;
  const { total = round, inference = total } = serverTiming(response);
  return { answer, times: { round, server: total, model: inference } };
}

/** The shell command for the same request. The key stays a variable, since commands are shared. */
export function curl({ route, body }) {
  const words = [
    `curl ${quoted(address(route))}`,
    "-H 'Content-Type: application/json'",
    apiKey() ? '-H "Authorization: Bearer $SPARSEBERT_API_KEY"' : "",
    `-d ${quoted(JSON.stringify(body))}`,
  ];
  return words.filter(Boolean).join(" \\\n  ");
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** The parts of a Server-Timing header, in milliseconds: `{total, inference, ...}`. */
function serverTiming(response) {
  const parts = (response.headers.get("Server-Timing") ?? "").split(",");
  const found = parts.map((part) => /^\s*([\w-]+)\s*;\s*dur=([\d.]+)/.exec(part)).filter(Boolean);
  return Object.fromEntries(found.map(([, name, milliseconds]) => [name, Number(milliseconds)]));
}

async function send(route, { headers = {}, ...options }) {
  const key = apiKey();
  const all = key ? { ...headers, Authorization: `Bearer ${key}` } : headers;
  let response;
  try {
    response = await fetch(address(route), { ...options, headers: all, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not respond: it has stopped or the network is down.", 0);
  }
  if (!response.ok) throw await failure(response, key);
  return response;
}

async function read(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server's response is truncated or not JSON.", response.status);
  }
}

async function failure(response, key) {
  const { status } = response;
  const said = await response.json().then(reason, () => "");
  const wait = Number.parseFloat(response.headers.get("Retry-After") ?? "") || 0;
  return new ServerError(sentence(status, said, key, wait), status, wait);
}

function sentence(status, said, key, wait) {
  if (status === 401) {
    return key ? "The server does not accept this API key." : "The server requires an API key.";
  }
  if (status === 413) return `This is too much for one request${said ? `: ${said}` : "."}`;
  if (status === 429) {
    const when = wait ? `in ${Math.ceil(wait)} s` : "in a moment";
    return `The server has as many requests as it can handle: try again ${when}.`;
  }
  if (status === 503) return "The server is starting or stopping: try again in a moment.";
  return said || `The server failed with status ${status}.`;
}

/** The message in the body of an error: `{"error": "..."}`, or OpenAI's or FastAPI's form. */
function reason(body) {
  const said = body?.error?.message ?? body?.error ?? body?.message ?? body?.detail;
  return typeof said === "string" ? said : "";
}

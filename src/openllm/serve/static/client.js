// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Calls of the server that this page came from.

export class ApiError extends Error {
  constructor(message, status = 0, wait = null) {
    super(message);
    this.status = status;
    this.wait = wait; // seconds after which the server wants to be asked again
  }
}

const address = (path) => new URL(path, document.baseURI);

async function call(path, key, options = {}) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(address(path), { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Is it running?");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  let message = `The server answered ${response.status} ${response.statusText}`.trim();
  try {
    const { error } = await response.json();
    if (typeof error?.message === "string") message = error.message;
  } catch {
    // no JSON: a proxy's page, say
  }
  return new ApiError(message, response.status, waiting(response.headers.get("Retry-After")));
}

// Retry-After holds seconds or a date.
function waiting(value) {
  if (!value) return null;
  const seconds = /^\s*\d+(\.\d+)?\s*$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(Math.ceil(seconds), 1), 3600) : null;
}

export async function listModels(key) {
  const { data } = await (await call("v1/models", key)).json();
  return data.map(({ id, parent }) => ({ id, parent: parent ?? null }));
}

// Yields { text, reasoning, finish, tokens } as they arrive.
export async function* answer(body, key, signal) {
  const options = { stream: true, stream_options: { include_usage: true } };
  const request = { method: "POST", body: JSON.stringify({ ...body, ...options }), signal };
  const response = await call("v1/chat/completions", key, request);
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    let chunk;
    try {
      chunk = JSON.parse(data);
    } catch {
      throw new ApiError("The server sent something that is not JSON.");
    }
    if (chunk.error) throw new ApiError(chunk.error.message ?? "The server failed.");
    const { delta = {}, finish_reason: finish } = chunk.choices?.[0] ?? {};
    yield {
      text: delta.content ?? "",
      reasoning: delta.reasoning_content ?? "",
      finish: finish ?? null,
      tokens: chunk.usage?.completion_tokens ?? null,
    };
  }
  throw new ApiError("The connection broke off before the answer ended.");
}

// The data of server-sent events.
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let [buffer, data] = ["", []];
  try {
    for (;;) {
      let piece;
      try {
        piece = await reader.read();
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new ApiError("The connection broke off before the answer ended.");
      }
      if (piece.done) return;
      buffer += piece.value;
      const lines = buffer.split(/\r\n|\n|\r(?!$)/);
      buffer = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        else if (!line && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

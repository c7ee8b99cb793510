// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Conversations in this browser: an entry of localStorage each, so that two tabs do not overwrite
// each other's. The API key stays in the tab.

const PREFIX = "openllm.chat.";
const FORMAT = "openllm-conversations";
const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];
const MAX_TEXT = 4_000_000;

export const key = {
  get: () => sessionStorage.getItem("openllm.key") ?? "",
  set: (value) => (value ? sessionStorage.setItem("openllm.key", value) : sessionStorage.removeItem("openllm.key")),
};

export function fresh(settings = {}) {
  const id = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { id, title: "", changed: Date.now(), settings: { ...settings }, messages: [] };
}

export function list() {
  const found = [];
  for (let at = 0; at < localStorage.length; at++) {
    const name = localStorage.key(at);
    if (!name.startsWith(PREFIX)) continue;
    const chat = read(localStorage.getItem(name));
    if (chat) found.push(chat);
  }
  return found.sort((one, other) => other.changed - one.changed);
}

export function load(id) {
  return read(localStorage.getItem(PREFIX + id));
}

// False if there is no room.
export function save(chat) {
  try {
    localStorage.setItem(PREFIX + chat.id, JSON.stringify(chat));
    return true;
  } catch {
    return false;
  }
}

export const remove = (id) => localStorage.removeItem(PREFIX + id);
export const isOurs = (name) => name === null || name.startsWith(PREFIX);

export function exported(chats) {
  return JSON.stringify({ format: FORMAT, format_version: 1, conversations: chats }, null, 1);
}

// Conversations of an exported file; throws an Error with a message for the user.
export function imported(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON.");
  }
  if (value?.format !== FORMAT || !Array.isArray(value.conversations)) {
    throw new Error("This file does not hold exported conversations.");
  }
  if (value.format_version !== 1) throw new Error("This file comes from a newer version.");
  const chats = value.conversations.map(clean);
  if (chats.includes(null)) throw new Error("This file is damaged: a conversation in it cannot be read.");
  return chats;
}

function read(text) {
  try {
    return clean(JSON.parse(text));
  } catch {
    return null;
  }
}

// A conversation with known fields of known types only, or null.
function clean(chat) {
  if (!/^[\w-]{1,64}$/.test(chat?.id) || !Array.isArray(chat.messages)) return null;
  const messages = chat.messages.map(cleanMessage);
  if (messages.includes(null)) return null;
  const settings = {};
  for (const name of ["model", "system"]) {
    if (typeof chat.settings?.[name] === "string") settings[name] = chat.settings[name];
  }
  for (const name of NUMBERS) {
    if (Number.isFinite(chat.settings?.[name])) settings[name] = chat.settings[name];
  }
  const changed = Number.isFinite(chat.changed) ? chat.changed : Date.now();
  return { id: chat.id, title: words(chat.title).slice(0, 200), changed, settings, messages };
}

function cleanMessage(message) {
  if (!["user", "assistant"].includes(message?.role) || typeof message.content !== "string") return null;
  if (message.content.length > MAX_TEXT) return null;
  const { role, content } = message;
  if (role === "user") return { role, content };
  const result = { role, content, reasoning: words(message.reasoning), model: words(message.model) };
  for (const name of ["first", "thought", "seconds", "tokens"]) {
    if (Number.isFinite(message[name])) result[name] = message[name];
  }
  if (typeof message.finish === "string") result.finish = message.finish;
  if (typeof message.error === "string") result.error = message.error;
  return result;
}

const words = (value) => (typeof value === "string" ? value : "");

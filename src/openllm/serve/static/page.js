// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// The chat page: what happens when the user does something.
import { answer, ApiError, listModels } from "./client.js";
import { $, el, toast } from "./dom.js";
import { Messages } from "./messages.js";
import { closeDrawers, openSettings, saveFile, showList, wireDrawers } from "./sidebar.js";
import * as store from "./store.js";

const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];
const MAX_TRIES = 5;
const SAVE_EVERY = 1000; // milliseconds

let chat = null; // the conversation that is shown
let running = null; // { chat, message, abort } of the answer that is being written

const say = (text) => ($("said").textContent = text);
const now = () => performance.now() / 1000;

const messages = new Messages({
  free: () => !running,
  regenerate(message) {
    if (running) return;
    cut(chat.messages.indexOf(message));
    respond();
  },
  resend(message, text) {
    if (running) return;
    cut(chat.messages.indexOf(message));
    ask(text);
  },
});

const conversations = {
  open: (id) => show(running?.chat.id === id ? running.chat : store.load(id) ?? store.fresh(chat.settings)),
  refresh: () => showList(chat.id, conversations),
  rename(id, title) {
    const one = [chat, running?.chat].find((known) => known?.id === id) ?? store.load(id);
    if (one) keep(Object.assign(one, { title }));
    conversations.refresh();
  },
  remove(id) {
    if (running?.chat.id === id) running.abort.abort();
    store.remove(id);
    if (chat.id === id) show(store.list()[0] ?? store.fresh(chat.settings));
    else conversations.refresh();
  },
  restore(one) {
    keep(one);
    show(one);
  },
};

// Write a conversation down; one that was deleted meanwhile stays deleted.
function keep(one) {
  if (!store.save(one)) toast("This browser's storage is full: export and delete old conversations.");
}

function cut(place) {
  if (place >= 0) chat.messages.length = place;
}

function show(one) {
  chat = one;
  for (const name of NUMBERS) $(name).value = chat.settings[name] ?? "";
  $("system").value = chat.settings.system ?? "";
  chooseModel();
  messages.show(chat.messages, running?.message);
  notice();
  conversations.refresh();
  document.title = chat.title || "Chat";
}

function chooseModel() {
  const options = [...$("model").options].map((option) => option.value);
  if (options.includes(chat.settings.model)) $("model").value = chat.settings.model;
  else if (options.length) $("model").selectedIndex = 0;
}

async function loadModels() {
  let found;
  try {
    found = await listModels(store.key.get());
  } catch (error) {
    askForKey(error);
    return notice(inWords(error), () => loadModels());
  }
  notice();
  const option = ({ id, parent }) => el("option", { value: id }, parent && !id.startsWith(parent) ? `${id} (${parent})` : id);
  $("model").replaceChildren(...found.map(option));
  chooseModel();
  return undefined;
}

// A message above the question, with what to do about it.
function notice(text, again, label = "Try again") {
  const box = $("notice");
  box.hidden = !text;
  box.replaceChildren(el("span", {}, text ?? ""));
  if (again) box.append(el("button", { type: "button", class: "plain", click: again }, label));
}

// Settings as they are typed; an impossible one is marked and not used.
function readSettings() {
  for (const name of NUMBERS) {
    const field = $(name);
    const good = field.value !== "" && field.validity.valid;
    field.setAttribute("aria-invalid", String(!field.validity.valid));
    if (good) chat.settings[name] = Number(field.value);
    else delete chat.settings[name];
  }
  chat.settings.system = $("system").value;
  if ($("model").value) chat.settings.model = $("model").value;
  if (chat.messages.length) keep(chat);
}

function request(one) {
  const { system, ...settings } = one.settings;
  const turns = system?.trim() ? [{ role: "system", content: system }] : [];
  for (const { role, content } of one.messages.slice(0, -1)) {
    // an answer that failed is left out, and roles must still alternate
    if (turns.at(-1)?.role === role) turns.at(-1).content += `\n\n${content}`;
    else if (role === "user" || content) turns.push({ role, content });
  }
  return { ...settings, messages: turns };
}

function ask(text) {
  chat.messages.push({ role: "user", content: text });
  chat.title ||= text.trim().replace(/\s+/g, " ").slice(0, 60);
  document.title = chat.title;
  respond();
}

async function respond() {
  readSettings();
  const message = { role: "assistant", content: "", reasoning: "", model: $("model").value };
  chat.messages.push(message);
  running = { chat, message, abort: new AbortController() };
  const job = running;
  touch(job);
  messages.show(chat.messages, message);
  conversations.refresh();
  busy(true);
  say("The answer is being written");
  let refused = null;
  try {
    await withRetries(job);
  } catch (error) {
    if (job.abort.signal.aborted) message.finish = "stopped";
    else failed(message, (refused = error));
  } finally {
    running = null;
    if (store.load(job.chat.id)) touch(job);
    messages.update(message, false);
    busy(false);
    askForKey(refused);
  }
  say(message.error ? `Failed: ${message.error}` : `The answer is complete: ${message.content}`.slice(0, 2000));
}

function failed(message, error) {
  if (!(error instanceof ApiError)) console.error(error);
  message.error = error instanceof ApiError ? inWords(error) : "This page failed; see the browser's console.";
}

function inWords(error) {
  return error.status === 401 && !store.key.get() ? "This server needs an API key: enter yours in the settings." : error.message;
}

function askForKey(error) {
  if ([401, 403].includes(error?.status)) openSettings("key");
}

function touch(job) {
  job.chat.changed = Date.now();
  keep(job.chat);
}

// A busy server says when to come back.
async function withRetries(job) {
  for (let tries = 1; ; tries++) {
    try {
      return await write(job);
    } catch (error) {
      const busyServer = [429, 503].includes(error.status) && error.wait !== null;
      if (!busyServer || tries === MAX_TRIES || job.abort.signal.aborted) throw error;
      await countdown(error, job.abort.signal);
    }
  }
}

function countdown({ wait, message }, signal) {
  return new Promise((resolve, reject) => {
    let left = wait;
    const end = (then) => {
      clearInterval(timer);
      notice();
      then();
    };
    const tell = () => notice(`${message} Trying again in ${left} s.`, () => end(resolve), "Try now");
    const timer = setInterval(() => (--left > 0 ? tell() : end(resolve)), 1000);
    signal.addEventListener("abort", () => end(() => reject(new Error("stopped"))), { once: true });
    tell();
  });
}

async function write(job) {
  const { message } = job;
  const began = now();
  let [firstAt, lastAt, saved, drawn] = [null, began, began, false];
  for await (const { text, reasoning, finish, tokens } of answer(request(job.chat), store.key.get(), job.abort.signal)) {
    if (text || reasoning) {
      lastAt = now();
      firstAt ??= lastAt;
      message.first = firstAt - began;
    }
    if (text && message.reasoning && message.thought === undefined) message.thought = now() - firstAt;
    message.content += text;
    message.reasoning += reasoning;
    if (finish) message.finish = finish;
    if (tokens !== null) message.tokens = tokens;
    if (firstAt) message.seconds = lastAt - firstAt;
    if (!drawn) {
      drawn = true;
      requestAnimationFrame(() => {
        drawn = false;
        if (running === job) messages.update(message, true);
      });
    }
    if ((now() - saved) * 1000 > SAVE_EVERY && store.load(job.chat.id)) {
      saved = now();
      store.save(job.chat);
    }
  }
  if (message.reasoning) message.thought ??= lastAt - firstAt;
}

function busy(on) {
  $("send").hidden = on;
  $("stop").hidden = !on;
  document.body.classList.toggle("busy", on);
  if (!on && !matchMedia("(pointer: coarse)").matches) $("question").focus();
}

function grow() {
  const field = $("question");
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight + 2, innerHeight / 3)}px`;
}

function wireQuestion() {
  const field = $("question");
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (running || !field.value.trim()) return;
    const text = field.value;
    field.value = "";
    grow();
    ask(text);
  });
  field.addEventListener("input", grow);
  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      $("form").requestSubmit();
    } else if (event.key === "ArrowUp" && !field.value) {
      event.preventDefault();
      messages.editLast();
    }
  });
  $("stop").addEventListener("click", () => running?.abort.abort());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !closeDrawers()) running?.abort.abort();
  });
}

function wireFiles() {
  $("export").addEventListener("click", () => {
    saveFile(`conversations-${new Date().toISOString().slice(0, 10)}.json`, store.exported(store.list()));
  });
  $("import").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", async () => {
    const [file] = $("file").files;
    $("file").value = "";
    if (!file) return;
    try {
      const found = store.imported(await file.text());
      const newer = found.filter((one) => one.changed > (store.load(one.id)?.changed ?? 0));
      newer.forEach(keep);
      toast(`Imported ${newer.length} of ${found.length} conversations; the others are here already`);
      conversations.open(chat.id);
    } catch (error) {
      toast(error.message);
    }
  });
}

function start() {
  wireDrawers();
  wireQuestion();
  wireFiles();
  $("new").addEventListener("click", () => {
    closeDrawers();
    show(store.fresh(chat.settings));
    $("question").focus();
  });
  for (const name of [...NUMBERS, "system", "model"]) $(name).addEventListener("change", readSettings);
  $("wishes").addEventListener("submit", (event) => event.preventDefault());
  $("key").value = store.key.get();
  $("key").addEventListener("change", () => {
    store.key.set($("key").value.trim());
    loadModels();
  });
  // another tab changed something
  addEventListener("storage", ({ key }) => {
    if (!store.isOurs(key)) return;
    const mine = key?.endsWith(chat.id) && running?.chat !== chat && store.load(chat.id);
    if (mine) show(mine);
    else conversations.refresh();
  });
  addEventListener("pagehide", () => running && store.save(running.chat));
  show(store.list()[0] ?? store.fresh());
  loadModels();
}

start();

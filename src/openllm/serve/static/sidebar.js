// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// The list of conversations, and the drawers of a narrow window.
import { $, el, toast } from "./dom.js";
import * as store from "./store.js";

const narrow = matchMedia("(max-width: 60rem)");
let opener = null;

export function closeDrawers() {
  const open = document.body.dataset.open;
  if (!open) return false;
  delete document.body.dataset.open;
  $("shade").hidden = true;
  if (open === "settings") setSettings(false);
  opener?.focus();
  return true;
}

function openDrawer(id) {
  document.body.dataset.open = id;
  $("shade").hidden = false;
  opener = $(`open-${id}`);
  $(id).querySelector("button, textarea, input").focus();
}

function setSettings(shown) {
  $("settings").hidden = !shown;
  $("open-settings").setAttribute("aria-expanded", String(shown));
}

export function openSettings(field) {
  setSettings(true);
  if (narrow.matches) openDrawer("settings");
  $(field)?.focus();
}

export function wireDrawers() {
  $("open-sidebar").addEventListener("click", () => {
    if (narrow.matches) openDrawer("sidebar");
    else document.body.classList.toggle("folded");
  });
  $("open-settings").addEventListener("click", () => {
    if ($("settings").hidden) openSettings("system");
    else if (!closeDrawers()) setSettings(false);
  });
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => closeDrawers() || setSettings(false));
  }
  $("shade").addEventListener("click", closeDrawers);
  narrow.addEventListener("change", () => {
    closeDrawers();
    if (narrow.matches) setSettings(false);
  });
}

function entry(chat, current, actions) {
  const title = chat.title || "New conversation";
  const open = el("button", { type: "button", class: "open", "aria-current": chat.id === current && "true",
    click: () => (closeDrawers(), actions.open(chat.id)) }, title);
  const rename = el("button", { type: "button", class: "icon", "aria-label": `Rename ${title}`, click: () => {
    const field = el("input", { value: chat.title, "aria-label": "Title", maxlength: "200" });
    let ended = false;
    const end = (keep) => {
      if (ended) return;
      ended = true;
      if (keep && field.value.trim()) actions.rename(chat.id, field.value.trim());
      else actions.refresh();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") end(true);
      if (event.key === "Escape") (event.stopPropagation(), end(false));
    });
    field.addEventListener("blur", () => end(true));
    item.replaceChildren(field);
    field.select();
  } }, "✎");
  const remove = el("button", { type: "button", class: "icon", "aria-label": `Delete ${title}`, click: () => {
    actions.remove(chat.id);
    toast(`Deleted “${title.slice(0, 40)}”`, "Undo", () => actions.restore(chat));
  } }, "✕");
  const item = el("li", {}, open, rename, remove);
  return item;
}

export function showList(current, actions) {
  $("conversations").replaceChildren(...store.list().map((chat) => entry(chat, current, actions)));
}

export function saveFile(name, text) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

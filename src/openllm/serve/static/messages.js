// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// The messages of the conversation that is shown, and the scrolling.
import { $, copyButton, el } from "./dom.js";
import { Rendered } from "./markdown.js";

const quiet = (label, click, title) => el("button", { type: "button", class: "quiet", click, "aria-label": title }, label);

class Answer {
  constructor(message, actions) {
    this.message = message;
    this.reasoning = el("div", { class: "thoughts" });
    this.summary = el("summary");
    this.details = el("details", { hidden: true }, this.summary, this.reasoning);
    this.text = el("div", { class: "text" });
    this.facts = el("p", { class: "facts" });
    this.problem = el("p", { class: "problem", hidden: true });
    this.tools = el("div", { class: "tools" }, copyButton(() => this.message.content, "Copy the answer"),
      quiet("Regenerate", () => actions.regenerate(this.message), "Regenerate the answer"), this.facts);
    const name = el("h2", { class: "hidden" }, message.model ? `Answer of ${message.model}` : "Answer");
    this.node = el("li", { class: "answer" }, name, this.details, this.text, this.problem, this.tools);
    this.rendered = new Rendered(this.text);
    this.thoughts = new Rendered(this.reasoning);
  }

  update(running) {
    const { content, reasoning, error, finish } = this.message;
    this.rendered.set(content);
    this.thoughts.set(reasoning);
    this.details.hidden = !reasoning;
    const { thought } = this.message;
    this.summary.textContent = thought === undefined ? "Thinking…" : `Thought for ${time(thought)}`;
    this.node.classList.toggle("running", running);
    this.node.classList.toggle("waiting", running && !content && !reasoning);
    const problem = error ?? { length: "Cut off: the limit of tokens is reached.", stopped: "Stopped." }[finish];
    this.problem.hidden = !problem || running;
    this.problem.textContent = problem ?? "";
    this.problem.classList.toggle("error", Boolean(error));
    this.facts.textContent = facts(this.message);
  }
}

const time = (seconds) => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`);

function facts({ first, seconds, tokens }) {
  const parts = [];
  if (first !== undefined) parts.push(`first token ${time(first)}`);
  if (tokens !== undefined) parts.push(`${tokens} token${tokens === 1 ? "" : "s"}`);
  // an answer that came all at once has hardly any time between its tokens
  const speed = seconds > 0.02 ? (tokens - 1) / seconds : tokens / (first + seconds);
  if (tokens > 1) parts.push(`${speed.toFixed(1)} tokens/s`);
  return parts.join(" · ");
}

class Question {
  constructor(message, actions) {
    this.message = message;
    this.text = el("div", { class: "bubble" }, message.content);
    this.tools = el("div", { class: "tools" }, quiet("Edit", () => this.edit(actions), "Edit the question"),
      copyButton(() => message.content, "Copy the question"));
    this.node = el("li", { class: "question" }, el("h2", { class: "hidden" }, "You"), this.text, this.tools);
  }

  edit(actions) {
    if (!actions.free()) return;
    const area = el("textarea", { rows: "3", "aria-label": "The question" });
    area.value = this.message.content;
    const done = () => this.node.replaceChild(this.text, form) && (this.tools.hidden = false);
    const send = (event) => {
      event?.preventDefault();
      if (area.value.trim()) actions.resend(this.message, area.value);
    };
    const keydown = (event) => {
      if (event.key === "Escape") (event.stopPropagation(), done());
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
    };
    area.addEventListener("keydown", keydown);
    const form = el("form", { class: "edit", submit: send }, area,
      el("div", { class: "bar" }, el("button", { type: "button", class: "plain", click: done }, "Cancel"), el("button", {}, "Send")));
    this.node.replaceChild(form, this.text);
    this.tools.hidden = true;
    area.focus();
  }

  update() {}
}

export class Messages {
  constructor(actions) {
    this.actions = actions;
    this.views = [];
    this.follow = true;
    const scroll = $("scroll");
    scroll.addEventListener("scroll", () => {
      this.follow = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 48;
      $("latest").hidden = this.follow;
    });
    $("latest").addEventListener("click", () => this.toEnd());
    addEventListener("resize", () => this.follow && this.toEnd());
  }

  // Show a conversation; views of messages that were shown before are kept.
  show(messages, running) {
    const old = new Map(this.views.map((view) => [view.message, view]));
    this.views = messages.map((message) =>
      old.get(message) ?? new (message.role === "user" ? Question : Answer)(message, this.actions));
    $("messages").replaceChildren(...this.views.map((view) => view.node));
    $("empty").hidden = messages.length > 0;
    this.views.forEach((view) => view.update(view.message === running));
    this.toEnd();
  }

  update(message, running) {
    this.views.find((view) => view.message === message)?.update(running);
    if (this.follow) this.toEnd();
  }

  editLast() {
    this.views.findLast((view) => view.message.role === "user")?.edit(this.actions);
  }

  toEnd() {
    $("scroll").scrollTop = $("scroll").scrollHeight;
    this.follow = true;
    $("latest").hidden = true;
  }
}

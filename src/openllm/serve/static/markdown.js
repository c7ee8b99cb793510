// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// A safe part of Markdown. `parse` makes plain objects, `Rendered` shows them and, while a text
// grows, builds only the blocks that changed. HTML in the text stays text; images become links.
import { copyButton, el } from "./dom.js";

const MAX_DEPTH = 8;
const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:( +)(.*))?$/;
const DELIMITERS = /^ {0,3}\|? *:?-+:? *(?:\| *:?-+:? *)*\|? *$/;
const blank = (line) => !line.trim();
const indent = (line) => line.length - line.trimStart().length;

// Each block has a `kind`, what belongs to it, and `source`, its lines.
export function parse(text) {
  return blocks(text.replace(/\r\n?/g, "\n").replace(/\t/g, "    ").split("\n"), 0);
}

function blocks(lines, depth) {
  const found = [];
  for (let at = 0; at < lines.length; ) {
    if (blank(lines[at])) {
      at++;
      continue;
    }
    const [block, end] = one(lines, at, depth);
    found.push({ ...block, source: lines.slice(at, end).join("\n") });
    at = end;
  }
  return found;
}

function one(lines, at, depth) {
  const line = lines[at];
  let match;
  if ((match = FENCE.exec(line))) return fence(lines, at, match);
  if ((match = HEADING.exec(line))) {
    const text = (match[2] ?? "").replace(/[ \t]#+[ \t]*$/, "");
    return [{ kind: "heading", level: match[1].length, text }, at + 1];
  }
  if (RULE.test(line)) return [{ kind: "rule" }, at + 1];
  if (depth < MAX_DEPTH && QUOTE.test(line)) {
    let end = at;
    while (end < lines.length && !blank(lines[end]) && (QUOTE.test(lines[end]) || !begins(lines, end))) end++;
    const inner = lines.slice(at, end).map((quoted) => quoted.replace(QUOTE, ""));
    return [{ kind: "quote", blocks: blocks(inner, depth + 1) }, end];
  }
  if (depth < MAX_DEPTH && ITEM.test(line)) return list(lines, at, depth);
  if (isTable(lines, at)) return table(lines, at);
  let end = at + 1;
  while (end < lines.length && !blank(lines[end]) && !begins(lines, end)) end++;
  return [{ kind: "paragraph", text: lines.slice(at, end).map((part) => part.trim()).join("\n") }, end];
}

// Whether a line ends the paragraph above it.
function begins(lines, at) {
  const line = lines[at];
  return [FENCE, HEADING, RULE, QUOTE, ITEM].some((kind) => kind.test(line)) || isTable(lines, at);
}

function fence(lines, at, [line, marks, info]) {
  const close = new RegExp(`^ {0,3}${marks[0]}{${marks.length},}[ \\t]*$`);
  let end = at + 1;
  while (end < lines.length && !close.test(lines[end])) end++;
  const cut = new RegExp(`^ {0,${indent(line)}}`);
  const text = lines.slice(at + 1, end).map((code) => code.replace(cut, "")).join("\n");
  return [{ kind: "code", language: info.trim().split(/\s/)[0], text }, Math.min(end + 1, lines.length)];
}

function list(lines, at, depth) {
  const ordered = (mark) => /\d/.test(mark);
  const [, margin, first] = ITEM.exec(lines[at]);
  const items = [];
  let loose = false;
  while (at < lines.length) {
    const match = RULE.test(lines[at]) ? null : ITEM.exec(lines[at]);
    if (!match || match[1].length > margin.length + 1 || ordered(match[2]) !== ordered(first)) break;
    const inner = [match[4] ?? ""];
    // models indent what belongs to an item by less than the marker is wide
    const need = match[1].length + 2;
    const strip = match[1].length + match[2].length + Math.min((match[3] ?? " ").length, 4);
    for (at++; at < lines.length; at++) {
      const line = lines[at];
      if (blank(line)) {
        const next = lines[at + 1];
        if (next === undefined || (indent(next) < need && !blank(next))) break;
        inner.push("");
      } else if (indent(line) >= need) inner.push(line.slice(Math.min(indent(line), strip)));
      else if (blank(inner.at(-1)) || begins(lines, at)) break;
      else inner.push(line.trim());
    }
    loose ||= inner.some((line, place) => blank(line) && place && place < inner.length - 1);
    items.push(blocks(inner, depth + 1));
    let next = at;
    while (next < lines.length && blank(lines[next])) next++;
    const another = next < lines.length && ITEM.test(lines[next]) && !RULE.test(lines[next]);
    if (!another || indent(lines[next]) < margin.length) break;
    at = next;
  }
  return [{ kind: "list", ordered: ordered(first), start: parseInt(first) || 1, loose, items }, at];
}

function isTable(lines, at) {
  const next = lines[at + 1];
  return lines[at].includes("|") && next !== undefined && next.includes("-") && DELIMITERS.test(next) &&
    cells(next).length === cells(lines[at]).length;
}

function cells(line) {
  const inside = line.trim().replace(/^\|/, "").replace(/([^\\]|^)\|$/, "$1");
  return inside.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function table(lines, at) {
  const head = cells(lines[at]);
  const sides = cells(lines[at + 1]).map((cell) => {
    if (cell.endsWith(":")) return cell.startsWith(":") ? "center" : "right";
    return "left";
  });
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|") && !blank(lines[end])) end++;
  const rows = lines.slice(at + 2, end).map((line) => {
    const row = cells(line);
    return head.map((_, column) => row[column] ?? "");
  });
  return [{ kind: "table", head, sides, rows }, end];
}

// Inline: a list of strings and of { tag, parts, href }.
export function inline(text, depth = 0) {
  const parts = [];
  const dead = new Set(); // marks that have no partner in the rest of the text
  let plain = "";
  const put = (part, next) => {
    if (plain) parts.push(plain);
    plain = "";
    parts.push(part);
    return next;
  };
  for (let at = 0; at < text.length; ) {
    const found = depth < MAX_DEPTH ? special(text, at, depth, dead) : null;
    if (found && typeof found.part === "string") [plain, at] = [plain + found.part, found.next];
    else if (found) at = put(found.part, found.next);
    else plain += text[at++];
  }
  if (plain) parts.push(plain);
  return parts;
}

function special(text, at, depth, dead) {
  const char = text[at];
  switch (char) {
    case "\n":
      return { part: { tag: "br", parts: [] }, next: at + 1 };
    case "\\":
      return /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "") ? { part: text[at + 1], next: at + 2 } : null;
    case "`":
      return codeSpan(text, at, dead);
    case "*":
    case "_":
    case "~":
      return emphasis(text, at, depth, dead);
    case "!":
      return text[at + 1] === "[" ? link(text, at + 1, depth) : null;
    case "[":
      return link(text, at, depth);
    case "<":
      return address(text, at + 1, ">");
    case "h":
      return /[\w/]/.test(text[at - 1] ?? "") ? null : address(text, at, "");
  }
  return null;
}

function codeSpan(text, at, dead) {
  const marks = /`+/y;
  marks.lastIndex = at;
  const mark = marks.exec(text)[0];
  const runs = dead.has(mark) ? [] : text.slice(at + mark.length).matchAll(/`+/g);
  for (const run of runs) {
    if (run[0] !== mark) continue;
    const end = at + mark.length + run.index;
    const inside = text.slice(at + mark.length, end).replace(/\n/g, " ");
    const code = /^ .*[^ ].* $/.test(inside) ? inside.slice(1, -1) : inside;
    return { part: { tag: "code", parts: [code] }, next: end + mark.length };
  }
  dead.add(mark);
  return { part: mark, next: at + mark.length };
}

function emphasis(text, at, depth, dead) {
  const char = text[at];
  const mark = text[at + 1] === char ? char + char : char;
  const start = at + mark.length;
  // 2*3*4 and snake_case_names are not emphasis
  const within = { "*": /\d/, _: /[\p{L}\p{N}_]/u, __: /[\p{L}\p{N}_]/u }[mark] ?? /(?!)/;
  const word = (place) => within.test(text[place] ?? "");
  if (mark === "~" || dead.has(mark) || /\s|^$/.test(text[start] ?? "") || word(at - 1)) {
    return { part: mark, next: start };
  }
  for (let end = start + 1; (end = text.indexOf(mark, end)) > 0; end++) {
    let run = end;
    while (text[run] === char) run++;
    if (run - end === 2 && mark.length === 1) {
      end = run - 1;
      continue;
    }
    if (run - end === 3) end += 3 - mark.length; // ***both***: the inner mark closes first
    if (/\s/.test(text[end - 1]) || text[end - 1] === "\\" || word(end + mark.length)) continue;
    const tag = { "~~": "del" }[mark] ?? (mark.length === 2 ? "strong" : "em");
    return { part: { tag, parts: inline(text.slice(start, end), depth + 1) }, next: end + mark.length };
  }
  dead.add(mark);
  return { part: mark, next: start };
}

function link(text, at, depth) {
  const window = text.slice(at, at + 3000);
  const match = /^\[((?:[^[\]\\]|\\.|\[[^[\]]{0,200}\]){0,800})\]\(<?((?:[^\s()<>]|\([^\s()<>]{0,200}\)){1,2000})>?(?:\s+["'][^"'\n]{0,300}["'])?\)/s.exec(window);
  if (!match) return null;
  const href = safe(match[2]);
  const parts = inline(match[1], Math.max(depth + 1, MAX_DEPTH - 2)).filter((part) => part.tag !== "a");
  if (!href) return { part: match[0], next: at + match[0].length };
  return { part: { tag: "a", href, parts: parts.length ? parts : [href] }, next: at + match[0].length };
}

function address(text, at, end) {
  const match = /^https?:\/\/[^\s<>"'`]{1,2000}/.exec(text.slice(at, at + 2010));
  if (!match) return null;
  let shown = match[0];
  if (!end) shown = shown.replace(/[.,;:!?*_~]+$/, "");
  if (!end && !shown.includes("(")) shown = shown.replace(/\)+$/, "");
  const href = safe(shown);
  if (!href || !text.startsWith(end, at + shown.length)) return null;
  return { part: { tag: "a", href, parts: [shown] }, next: at + shown.length + end.length };
}

// Only addresses that open a page or a letter; none that run something or point into this server.
function safe(href) {
  try {
    const url = new URL(href);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

const spans = (text) => inline(text).map(span);

function span(part) {
  if (typeof part === "string") return part;
  const more = part.href ? { href: part.href, title: part.href, target: "_blank", rel: "noopener noreferrer nofollow" } : {};
  return el(part.tag, more, ...part.parts.map(span));
}

function show(block) {
  switch (block.kind) {
    case "code":
      return el(
        "div",
        { class: "code" },
        el("div", { class: "code-head" }, el("span", {}, block.language || "text"), copyButton(() => block.text, "Copy code")),
        el("pre", { tabindex: "0" }, el("code", {}, block.text)),
      );
    case "heading": // the page has its own first two levels
      return el(`h${Math.min(block.level + 2, 6)}`, { class: `level-${block.level}` }, ...spans(block.text));
    case "rule":
      return el("hr");
    case "quote":
      return el("blockquote", {}, ...block.blocks.map(show));
    case "list": {
      const items = block.items.map((item) => el("li", {}, ...item.map((part) => (block.loose ? show(part) : tight(part)))));
      return el(block.ordered ? "ol" : "ul", block.ordered && block.start !== 1 ? { start: block.start } : {}, ...items);
    }
    case "table": {
      const cell = (tag) => (text, column) => el(tag, { class: block.sides[column] }, ...spans(text));
      const head = el("thead", {}, el("tr", {}, ...block.head.map(cell("th"))));
      const body = el("tbody", {}, ...block.rows.map((row) => el("tr", {}, ...row.map(cell("td")))));
      return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, el("table", {}, head, body));
    }
  }
  return el("p", {}, ...spans(block.text));
}

function tight(block) {
  return block.kind === "paragraph" ? el("span", {}, ...spans(block.text)) : show(block);
}

export class Rendered {
  constructor(node) {
    this.node = node;
    this.sources = [];
  }

  set(text) {
    const found = parse(text);
    let same = 0;
    while (same < found.length && found[same].source === this.sources[same]) same++;
    while (this.node.children.length > same) this.node.lastChild.remove();
    this.node.append(...found.slice(same).map(show));
    this.sources = found.map((block) => block.source);
  }
}

// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Text to token ids and back: byte-pair encoding with byte fallback, as SentencePiece does it.
"use strict";

(() => {
  const SPACE = "\u2581";

  class Tokenizer {
    // pieces: text of each id; merges: flat list of (left id, right id), best first;
    // bytes: id of byte 0, 1, ...; special: ids that stand for no text;
    // start: ids before every text; prefix: whether a text gets a space before it.
    constructor({ pieces, merges, bytes, special, start, prefix }) {
      this.pieces = pieces;
      this.bytes = bytes;
      this.start = start;
      this.prefix = prefix;
      this.special = new Set(special);
      this.byteOf = new Map(bytes.map((id, byte) => [id, byte]));
      // a text is never read as a special token
      this.ids = new Map();
      pieces.forEach((piece, id) => {
        if (!this.special.has(id) && !this.byteOf.has(id)) this.ids.set(piece, id);
      });
      this.size = pieces.length;
      this.merges = new Map();
      for (let at = 0; at < merges.length; at += 2) {
        const [left, right] = [merges[at], merges[at + 1]];
        const whole = this.ids.get(pieces[left] + pieces[right]);
        this.merges.set(left * this.size + right, [at, whole]);
      }
    }

    // The ids of a text, the ones at the start included.
    encode(text) {
      const marked = (this.prefix && text ? " " : "") + text.toWellFormed();
      const units = [];
      for (const character of marked.replaceAll(" ", SPACE)) {
        const id = this.ids.get(character);
        if (id === undefined) {
          for (const byte of new TextEncoder().encode(character)) units.push(this.bytes[byte]);
        } else {
          units.push(id);
        }
      }
      return [...this.start, ...this.merge(units)];
    }

    // Join the best pair of neighbours, leftmost first, until none is left.
    merge(ids) {
      const rank = (at) => {
        const found = at + 1 < ids.length && this.merges.get(ids[at] * this.size + ids[at + 1]);
        return found ? found[0] : Infinity;
      };
      const ranks = ids.map((_, at) => rank(at));
      for (;;) {
        let best = -1;
        let lowest = Infinity;
        for (let at = 0; at < ranks.length; at++) {
          if (ranks[at] < lowest) [best, lowest] = [at, ranks[at]];
        }
        if (best < 0) return ids;
        const [, whole] = this.merges.get(ids[best] * this.size + ids[best + 1]);
        ids.splice(best, 2, whole);
        ranks.splice(best, 1);
        ranks[best] = rank(best);
        if (best > 0) ranks[best - 1] = rank(best - 1);
      }
    }

    // Decodes ids one by one; a character is held back until its last byte.
    stream() {
      const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
      const encoder = new TextEncoder();
      return {
        feed: (id) => {
          if (this.special.has(id)) return "";
          const byte = this.byteOf.get(id);
          const bytes =
            byte === undefined
              ? encoder.encode(this.pieces[id].replaceAll(SPACE, " "))
              : Uint8Array.of(byte);
          return decoder.decode(bytes, { stream: true });
        },
        finish: () => decoder.decode(),
      };
    }

    decode(ids) {
      const stream = this.stream();
      return ids.map((id) => stream.feed(id)).join("") + stream.finish();
    }
  }

  globalThis.OpenLLM = { Tokenizer, parts: {} };
})();

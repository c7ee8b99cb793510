// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Load the model into onnxruntime-web and continue texts with it, keys and values kept.
"use strict";

(() => {
  // Files are read as scripts: a page that was opened from a folder may not fetch its neighbours.
  function script(path) {
    return new Promise((resolve, reject) => {
      const element = document.createElement("script");
      element.src = path;
      element.onload = () => resolve(element.remove());
      element.onerror = () => reject(new Error(`${path} is missing; copy the whole folder`));
      document.head.append(element);
    });
  }

  // The bytes that a group of scripts holds: gzip in base64, in pieces.
  async function bytes(name, count, progress = () => {}) {
    const pieces = [];
    for (let number = 0; number < count; number++) {
      await script(`${name}-${String(number).padStart(3, "0")}.js`);
      const text = OpenLLM.parts[`${name}-${number}`];
      delete OpenLLM.parts[`${name}-${number}`];
      pieces.push(await (await fetch(`data:application/octet-stream;base64,${text}`)).blob());
      progress((number + 1) / count);
    }
    const unpacked = new Blob(pieces).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(unpacked).arrayBuffer());
  }

  async function startRuntime(facts) {
    await script("runtime/ort.wasm.min.js");
    const glue = await bytes("runtime/glue", facts.runtime.glue);
    const url = URL.createObjectURL(new Blob([glue], { type: "text/javascript" }));
    ort.env.wasm.wasmPaths = { mjs: url };
    ort.env.wasm.wasmBinary = (await bytes("runtime/wasm", facts.runtime.wasm)).buffer;
    ort.env.wasm.numThreads = 1; // more need headers that only a server can send
  }

  class Model {
    static async load(facts, progress) {
      await startRuntime(facts);
      const graph = await bytes("model/part", facts.parts, progress);
      const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
      return new Model(session, facts);
    }

    constructor(session, facts) {
      this.session = session;
      this.facts = facts;
      this.past = session.inputNames.filter((name) => name.startsWith("past_key_values."));
    }

    // Yields one id after the other: until an end token, `count` of them, or the context is full.
    async *generate(prompt, { count, temperature, pastEnd = false }) {
      const { heads, head_dim: width, end, context } = this.facts;
      const empty = () => new ort.Tensor("float32", new Float32Array(0), [1, heads, 0, width]);
      let cache = Object.fromEntries(this.past.map((name) => [name, empty()]));
      let [ids, total] = [prompt, 0];
      const longest = Math.min(count, context - prompt.length);
      for (let made = 0; made < longest; made++) {
        const places = ids.map((_, at) => total + at);
        total += ids.length;
        const found = await this.session.run({
          input_ids: whole(ids),
          attention_mask: whole(new Array(total).fill(1)),
          position_ids: whole(places),
          ...cache,
        });
        const [, time, vocabulary] = found.logits.dims;
        const scores = found.logits.data.subarray((time - 1) * vocabulary, time * vocabulary);
        const id = temperature > 0 ? sample(scores, temperature) : likeliest(scores);
        if (!pastEnd && end.includes(id)) return;
        yield id;
        cache = Object.fromEntries(
          this.past.map((name) => [name, found[name.replace("past_key_values", "present")]]),
        );
        ids = [id];
      }
    }
  }

  function whole(numbers) {
    return new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), [1, numbers.length]);
  }

  function likeliest(scores) {
    let best = 0;
    for (let id = 1; id < scores.length; id++) if (scores[id] > scores[best]) best = id;
    return best;
  }

  function sample(scores, temperature) {
    const highest = scores[likeliest(scores)];
    const weights = Float64Array.from(scores, (score) => Math.exp((score - highest) / temperature));
    let left = Math.random() * weights.reduce((sum, weight) => sum + weight, 0);
    for (let id = 0; id < weights.length; id++) if ((left -= weights[id]) < 0) return id;
    return likeliest(scores); // rounding
  }

  Object.assign(OpenLLM, { Model, script });
})();

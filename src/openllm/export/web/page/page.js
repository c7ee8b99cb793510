// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// What the reader sees and presses.
"use strict";

(async () => {
  const $ = (id) => document.getElementById(id);
  const say = (text) => ($("status").textContent = text);
  let stopped = false;

  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = root.dataset.theme ?? (dark ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });
  $("stop").addEventListener("click", () => (stopped = true));

  function show(facts, certificate) {
    $("name").textContent = document.title = facts.name;
    const rows = { ...facts.shown, Certificate: certificate };
    for (const [term, text] of Object.entries(rows)) {
      const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
      [dt.textContent, dd.textContent] = [term, text];
      $("facts").append(dt, dd);
    }
  }

  // Lets the browser paint and hear the buttons; a timer would wait too long.
  function breathe() {
    return new Promise((resolve) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => resolve(port1.close());
      port2.postMessage(null);
    });
  }

  async function run(model, tokenizer) {
    const prompt = $("prompt").value || $("prompt").placeholder;
    const ids = tokenizer.encode(prompt);
    if (ids.length >= model.facts.context) {
      say(`That is ${ids.length} tokens, but the model reads ${model.facts.context}; shorten it.`);
      return;
    }
    const [given, made] = [document.createElement("span"), document.createElement("span")];
    given.className = "given";
    given.textContent = prompt;
    $("text").replaceChildren(given, made);
    const stream = tokenizer.stream();
    const wish = { count: $("tokens").valueAsNumber, temperature: $("temperature").valueAsNumber };
    let [count, began] = [0, performance.now()];
    for await (const id of model.generate(ids, wish)) {
      made.append(stream.feed(id));
      if (count++ === 0) began = performance.now(); // reading the prompt is not part of the speed
      const seconds = (performance.now() - began) / 1000;
      const speed = count > 1 ? `, ${((count - 1) / seconds).toFixed(1)} tokens/s` : "";
      say(`${count} tokens${speed}`);
      await breathe();
      if (stopped) break;
    }
    made.append(stream.finish());
  }

  try {
    await OpenLLM.script("facts.js");
    await OpenLLM.script("certificate.js");
    const { facts, certificate } = OpenLLM;
    show(facts, certificate);
    await OpenLLM.script("vocabulary.js");
    const tokenizer = new OpenLLM.Tokenizer(OpenLLM.vocabulary);
    delete OpenLLM.vocabulary;
    const model = await OpenLLM.Model.load(facts, (share) =>
      say(`Loading the model: ${Math.round(100 * share)} %`),
    );
    Object.assign(OpenLLM, { tokenizer, model });
    $("form").addEventListener("submit", async (event) => {
      event.preventDefault();
      [stopped, $("generate").disabled, $("stop").disabled] = [false, true, false];
      try {
        await run(model, tokenizer);
      } catch (error) {
        say(`The model stopped: ${error.message}`);
      }
      [$("generate").disabled, $("stop").disabled] = [false, true];
    });
    $("generate").disabled = false;
    say("Ready.");
  } catch (error) {
    say(`The model cannot be loaded: ${error.message}`);
  }
})();

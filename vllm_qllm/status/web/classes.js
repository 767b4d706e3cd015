// SPDX-License-Identifier: Apache-2.0
"use strict";
// One card for each class.

const TIMES = {
  time_to_first_token: "First token", response: "Response", time_per_output_token: "Per token",
  end_to_end: "End to end", suspended: "Suspended for",
};
const QUEUE = { running: "running", waiting: "waiting", suspended: "suspended", parked: "parked", spilled_bytes: "on host" };

class ClassCard {
  constructor(name, level) {
    this.fields = {};
    const field = (key, tag, attributes = {}) => this.fields[key] = element(tag, { ...attributes, "data-field": `${name}.${key}` });
    const title = element("h3", {}, swatch(level), name);
    this.objective = element("p", { class: "objective" }, field("kept", "b"), field("objective", "span", { class: "quiet" }));
    const queue = element("dl", { class: "queue" }, ...Object.entries(QUEUE).map(([key, label]) =>
      element("div", {}, element("dt", {}, label), field(key, "dd"))));
    const head = ["", "p50", "p90", "p99", "count"].map((label, index) => element(index ? "th" : "td", index ? { scope: "col", class: "number" } : {}, label));
    const body = Object.entries(TIMES).map(([key, label]) => element("tr", {}, element("th", { scope: "row" }, label),
      ...["p50", "p90", "p99", "count"].map((part) => field(`${key}.${part}`, "td", { class: "number" }))));
    const table = element("table", { "aria-label": `Times of ${name}` }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
    this.spark = drawn("svg", { class: "spark", viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img" });
    const progress = element("div", { class: "progress" },
      element("div", {}, field("generated_tokens_per_second", "b"), " tokens/s", element("br"), field("totals", "span", { class: "quiet" })), this.spark);
    this.node = element("article", { class: `card ${colour(level)}` },
      element("header", {}, title, field("range", "span", { class: "quiet" })),
      this.objective, queue, table, progress, field("bounds", "p", { class: "quiet" }));
  }

  show(cls) {
    const set = (key, text) => say(this.fields[key], text);
    set("range", `${range(cls)} · ${cls.service_tiers.join(", ") || "no tier"}`);
    set("bounds", `Held back for at most ${given(seconds(cls.max_wait_ms / 1000))}, then it runs for ${given(seconds(cls.slice_ms / 1000))}.`);
    this.showObjective(cls.objective);
    for (const key of Object.keys(QUEUE)) {
      const value = cls.queue ? cls.queue[key] : null;
      set(key, value === null ? NONE : key === "spilled_bytes" ? bytes(value) : String(value));
    }
    const recent = cls.recent;
    for (const key of Object.keys(TIMES)) {
      for (const part of ["p50", "p90", "p99"]) set(`${key}.${part}`, recent ? seconds(recent[key][part]) : NONE);
      set(`${key}.count`, recent ? String(recent[key].count) : NONE);
    }
    set("generated_tokens_per_second", recent ? rate(recent.generated_tokens_per_second) : NONE);
    set("totals", recent ? totals(recent) : "no engine has recorded anything yet");
    this.drawSpark(cls.progress);
  }

  showObjective(objective) {
    const kept = objective && objective.kept_share !== null ? (objective.kept_share >= objective.share ? "yes" : "no") : "";
    this.objective.dataset.kept = kept;
    say(this.fields.kept, objective && objective.kept_share !== null ? `${kept === "yes" ? "✓" : "✗"} ${percent(objective.kept_share)}` : "");
    if (!objective) return say(this.fields.objective, "No objective: slo_ttft_ms of the class is not set.");
    const goal = `within ${given(seconds(objective.ttft_ms / 1000))}, goal ${given(`${significant(objective.share * 100, 4)} %`)}`;
    return say(this.fields.objective, objective.requests
      ? `of ${count(objective.requests, "first token")} ${goal}: ${kept === "yes" ? "kept" : "missed"}` : `First tokens ${goal}: none in the window.`);
  }

  drawSpark(progress) {
    const most = Math.max(...progress, 0);
    this.spark.setAttribute("aria-label", progress.length ? `Tokens a second over the window: at most ${rate(most)}` : "Tokens a second: not known yet");
    const at = (value, index) => `${(100 * index / Math.max(1, progress.length - 1)).toFixed(2)} ${(38 - 35 * value / (most || 1)).toFixed(2)}`;
    const path = progress.length > 1 ? `M -2 42 L ${progress.map(at).join(" L ")} L 102 42 Z` : "";
    this.spark.replaceChildren(drawn("path", { d: path }));
  }
}

function range(cls) {
  if (cls.min_priority === null && cls.max_priority === null) return "every priority";
  if (cls.min_priority === null) return `priority up to ${cls.max_priority}`;
  if (cls.max_priority === null) return `priority from ${cls.min_priority}`;
  if (cls.min_priority === cls.max_priority) return `priority ${cls.max_priority}`;
  return `priority ${cls.min_priority} to ${cls.max_priority}`;
}

function totals(recent) {
  const ended = Object.entries(recent.ended).filter(([, number]) => number);
  const sum = ended.reduce((total, [, number]) => total + number, 0);
  const how = ended.length ? ` (${ended.map(([outcome, number]) => `${number} ${outcome}`).join(", ")})` : "";
  const prompt = `${rate(recent.prompt_tokens_per_second)} prompt tokens/s`;
  return `${prompt} · ${sum} ended${how} · ${count(recent.preemptions, "preemption")}`;
}

const cards = new Map();

function showClasses(classes) {
  const names = classes.map((cls) => cls.name);
  if (names.join() !== [...cards.keys()].join()) {
    cards.clear();
    names.forEach((name, level) => cards.set(name, new ClassCard(name, level)));
    byId("classes").replaceChildren(...[...cards.values()].map((card) => card.node));
  }
  for (const cls of classes) cards.get(cls.name).show(cls);
}

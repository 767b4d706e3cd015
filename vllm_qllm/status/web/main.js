// SPDX-License-Identifier: Apache-2.0
"use strict";
// What is asked, what is shown of it, and what is said when there is no answer.

const SILENT_AFTER_MS = 6_000;
const asked = new URLSearchParams(location.search);
const steps = new Steps();
const lanes = new Lanes(byId("lanes"), byId("detail"), steps);
// The key is in this variable and nowhere else.
let key = "", answeredAt = null, refused = false, timelineOn = false, paused = false;

const headers = () => key ? { Authorization: `Bearer ${key}` } : {};
const status = new Poller(2000, { address: () => `status?seconds=${byId("window").value}`, headers, answered: showStatus, failed });
const timeline = new Poller(1000, {
  // Some seconds more than are shown, so that two answers overlap.
  address: () => `timeline?seconds=${Math.max(5, lanes.span + 2)}&after=${steps.last}`, headers, answered: showTimeline,
  failed: (error) => say(byId("timeline-note"), `The timeline cannot be read: ${reason(error)}`),
});

function showStatus(found) {
  if (found.format !== "vllm-qllm status" || found.version !== 1) return failed(new Refused(200, "in a format that this page does not know: load it again"));
  answeredAt = performance.now();
  refused = false;
  byId("key").hidden = true;
  byId("main").hidden = false;
  const texts = { serving: "Serving", draining: "Draining: no new requests are taken", "engine dead": "The engine is dead: numbers are its last ones" };
  texts.stalled = `The engine stands still: no step for ${seconds(found.stalled_seconds)} while requests wait`;
  if (found.stalled_seconds >= 5) texts.serving = `Serving, but no step for ${seconds(found.stalled_seconds)} while requests wait`;
  showState(found.state === "engine dead" ? "dead" : found.state, texts[found.state] ?? found.state);
  const models = found.models.join(", ");
  say(byId("model"), models);
  document.title = `${found.state === "serving" ? "" : `${found.state}: `}${found.models[0]} – vllm-qllm`;
  say(byId("about"), `vllm-qllm ${found.versions.vllm_qllm} on vLLM ${found.versions.vllm}, policy ${found.policy.name}`);
  showClasses(found.classes);
  showSuspensions(found);
  showTenants(found);
  showPolicy(found);
  const window = found.covered === null ? "" : found.seconds ? `, window ${seconds(found.covered)}` : `, ${seconds(found.covered)} since the start`;
  say(byId("asof"), `As of ${new Date(found.time * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC by the server's clock${window}.`);
  switchTimeline(found.timeline > 0);
  return true;
}

function switchTimeline(on) {
  byId("timeline").hidden = byId("latest-part").hidden = !on;
  byId("timeline-off").hidden = on;
  if (on && !timelineOn && !paused) timeline.now();
  if (!on) timeline.stop();
  timelineOn = on;
}

function showTimeline(found) {
  const engine = found.engines[0];
  if (!engine) return;
  // Another engine, whose events count from 1 again, or something was missed: begin anew.
  if (steps.last && (steps.pid !== engine.pid || engine.start > steps.now || !engine.complete)) {
    steps.forget();
    lanes.choose(null);
    timeline.now();
    return;
  }
  steps.add(engine);
  say(byId("timeline-note"), engine.complete ? "" : "The ring is too small for so much: the beginning is missing.");
  lanes.draw();
  if (lanes.chosen && lanes.chosen.end === null) lanes.describe();
  const stops = steps.stops().slice(0, 8);
  rows(byId("latest"), stops.map((stop) => [
    [seconds(steps.now - stop.start), "number"],
    named(stop.step.name, stop.step.level), `${stop.where}, layer ${stop.layer}`,
    stop.by === "budget" ? "others" : named(stop.by, steps.classes.indexOf(stop.by)),
    [stop.end === null ? "still" : seconds(stop.end - stop.start), "number"],
  ]));
  byId("latest-none").hidden = stops.length > 0;
}

function failed(error) {
  if (error.status === 401 || error.status === 403) {
    refused = true;
    timeline.stop();
    timelineOn = false;
    byId("key").hidden = false;
    byId("main").hidden = true;
    say(byId("key-reason"), key ? `That key was refused: ${error.message}.` : "");
    key = "";
    showState("key", "A key is needed");
    return false;  // each further try would be one more refusal on record
  }
  showState("silent", error.status ? reason(error) : silence());
  return true;
}

// Of a server that does not answer, browsers say little that would help.
const reason = (error) => error.status ? `the server answers with status ${error.status}, ${error.message}` : "no answer";
const silence = () => answeredAt === null ? "No answer yet" : `No answer for ${Math.round((performance.now() - answeredAt) / 1000)} s: these numbers are old`;

function showState(state, text) {
  byId("state").dataset.state = state;
  say(byId("state"), text);
  document.body.classList.toggle("stale", ["silent", "dead"].includes(state));
}

byId("key").addEventListener("submit", (event) => {
  event.preventDefault();
  key = byId("key-value").value;
  byId("key-value").value = "";
  status.now();
});
byId("window").addEventListener("change", () => status.now());
byId("span").addEventListener("change", () => {
  lanes.span = Number(byId("span").value);
  if (paused) {
    lanes.draw();
    return;
  }
  steps.forget();  // a longer time may begin before what is known
  lanes.choose(null);
  timeline.now();
});
byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  say(byId("timeline-note"), paused ? "Paused." : "");
  if (paused) timeline.stop();
  else timeline.now();
});
// A poll that takes long is no error yet, but what is shown gets old.
setInterval(() => {
  const age = answeredAt === null ? 0 : performance.now() - answeredAt;
  if (age > SILENT_AFTER_MS && !refused && !document.hidden) showState("silent", silence());
}, 1000);

// /qllm/?seconds=0&span=20 is the page with these choices made.
for (const [name, id] of [["seconds", "window"], ["span", "span"]]) {
  const options = [...byId(id).options].map((option) => option.value);
  if (options.includes(asked.get(name))) byId(id).value = asked.get(name);
}
lanes.span = Number(byId("span").value);
status.now();

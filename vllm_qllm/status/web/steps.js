// SPDX-License-Identifier: Apache-2.0
"use strict";
// From the events of /qllm/timeline to steps, their suspensions and the requests that began in them.

const KEEP_SECONDS = 65;

class Steps {
  constructor() {
    this.forget();
  }

  forget() {
    this.pid = null;
    this.last = 0;       // number of the last event that is known
    this.now = 0;        // of the engine's clock, when it was asked
    this.classes = [];
    this.complete = true;
    this.steps = new Map();
    this.requests = new Map();
  }

  // Take what an answer of the server adds. Times are the engine's alone: clocks of browsers differ.
  add(engine) {
    this.pid = engine.pid;
    this.classes = engine.classes;
    this.now = engine.now;
    this.complete = engine.complete;
    for (const event of engine.events) {
      if (event.number <= this.last) continue;
      this.last = event.number;
      if (event.step !== undefined && event.kind.startsWith("step_")) this.step(event);
      else if (event.request !== undefined) this.request(event);
    }
    this.drop(this.now - KEEP_SECONDS);
  }

  step(event) {
    let step = this.steps.get(event.step);
    if (!step) {
      step = { number: event.step, level: this.classes.indexOf(event.class), name: event.class, start: event.time, end: null, stops: [], requests: [] };
      this.steps.set(event.step, step);
    }
    if (event.kind === "step_copied") {
      step.copied = event;
      return;
    }
    const open = step.stops.at(-1);
    if (open && open.end === null) open.end = event.time;
    if (event.kind === "step_started") Object.assign(step, { depth: event.depth, lane: event.lane, tokens: event.tokens, size: event.requests, decode: event.decode_rows > 0 });
    if (event.kind === "step_suspended") step.stops.push({ step, start: event.time, end: null, layer: event.layer, where: event.where, by: event.by });
    if (event.kind === "step_finished") step.end = event.time;
  }

  request(event) {
    const request = this.requests.get(event.request) || { level: this.classes.indexOf(event.class), id: null, arrived: null, end: null };
    this.requests.set(event.request, request);
    if (event.kind === "request_arrived") Object.assign(request, { id: event.id, arrived: event.time });
    if (event.kind === "request_finished") request.end = event.time;
    if (event.kind !== "request_started") return;
    request.response = event.response;
    const step = this.steps.get(event.step);
    if (step) step.requests.push(request);
  }

  drop(before) {
    for (const [key, step] of this.steps) if (step.end !== null && step.end < before) this.steps.delete(key);
    for (const [key, request] of this.requests) if (request.end !== null && request.end < before) this.requests.delete(key);
  }

  // Suspensions, the latest first.
  stops() {
    return [...this.steps.values()].flatMap((step) => step.stops).sort((a, b) => b.start - a.start);
  }

  // Steps of a class, in order of time.
  of(level) {
    return [...this.steps.values()].filter((step) => step.level === level).sort((a, b) => a.start - b.start);
  }
}

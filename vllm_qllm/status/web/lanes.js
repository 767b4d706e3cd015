// SPDX-License-Identifier: Apache-2.0
"use strict";
// The steps of the last seconds, a lane for each class, the most urgent one on top: what is nested is
// always more urgent than what it suspended, and so stands above it.

const LABEL = 20, HEIGHT = 26, GAP = 14, AXIS = 28, PAD = 10;

class Lanes {
  constructor(node, detail, steps) {
    Object.assign(this, { node, detail, steps, span: 5, chosen: null, boxes: [] });
    node.addEventListener("pointermove", (event) => this.point(event));
    node.addEventListener("pointerdown", (event) => this.point(event));
    node.addEventListener("keydown", (event) => this.press(event));
    new ResizeObserver(() => this.draw()).observe(node);
  }

  draw() {
    const { steps, span } = this;
    const width = this.node.clientWidth, classes = steps.classes;
    if (!width || !classes.length) return;
    const height = classes.length * (LABEL + HEIGHT + GAP) + AXIS;
    this.scale = (width - 2 * PAD) / span;
    this.boxes = classes.map(() => []);
    const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" }, this.patterns(), ...this.ticks(width, height));
    const behind = drawn("g"), front = drawn("g"), above = drawn("g");
    classes.forEach((name, level) => {
      const base = this.top(level) + HEIGHT;
      front.append(drawn("text", { class: "lane", x: PAD, y: this.top(level) - 9 }, name),
        drawn("line", { class: "base", x1: PAD, x2: width - PAD, y1: base + 0.5, y2: base + 0.5 }));
      for (const step of this.shown(level)) this.drawStep(step, behind, front, above);
    });
    this.drawArrivals(above);
    svg.append(behind, front, above);
    this.node.replaceChildren(svg);
    this.node.setAttribute("aria-label", this.summary());
    this.outline();
  }

  top(level) { return LABEL + level * (LABEL + HEIGHT + GAP) + 4; }
  x(time) { return PAD + (time - this.steps.now + this.span) * this.scale; }
  shown(level) { return this.steps.of(level).filter((step) => (step.end ?? this.steps.now) > this.steps.now - this.span); }

  patterns() {
    return drawn("defs", {}, ...this.steps.classes.map((_, level) => drawn("pattern",
      { id: `hatch-${level}`, class: colour(level), width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      drawn("line", { class: "hatch", x1: 1, x2: 1, y1: 0, y2: 6 }))));
  }

  ticks(width, height) {
    const every = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20].find((step) => step * this.scale >= 70) || 20;
    const made = [];
    for (let ago = 0; ago <= this.span + 1e-9; ago += every) {
      const x = width - PAD - ago * this.scale;
      const anchor = ago === 0 ? "end" : x < 30 ? "start" : "middle";
      made.push(drawn("line", { class: "tick", x1: x, x2: x, y1: 4, y2: height - 20 }),
        drawn("text", { x, y: height - 6, "text-anchor": anchor }, ago === 0 ? "now" : given(`−${significant(ago, 2)} s`)));
    }
    return made;
  }

  // Short steps that follow each other closely become one box, so a busy minute is no more work to draw than its width.
  drawStep(step, behind, front, above) {
    const left = Math.max(this.x(step.start), PAD), right = Math.max(left, this.x(step.end ?? this.steps.now));
    const boxes = this.boxes[step.level], before = boxes.at(-1);
    if (right - left < 2 && !step.stops.length && before && before.merges && before.decode === step.decode && left - before.right < 1) {
      before.right = right;
      before.steps.push(step);
      before.rect.setAttribute("width", Math.max(1, right - before.left));
      before.rect.dataset.steps = before.steps.length;
      return;
    }
    const high = step.decode ? HEIGHT / 2 : HEIGHT, y = this.top(step.level) + HEIGHT - high;
    const group = drawn("g", { class: colour(step.level), "data-step": step.number, "data-class": step.name, "data-depth": step.depth ?? 0 });
    let from = step.start;
    const run = (until, open) => group.append(this.part(from, until, y, high, { class: open ? "step open" : "step", "data-steps": 1 }));
    for (const stop of step.stops) {
      run(stop.start, false);
      const until = stop.end ?? this.steps.now;
      group.append(this.part(stop.start, until, y, high, { class: "stopped", fill: `url(#hatch-${step.level})`, "data-by": stop.by, "data-layer": stop.layer }));
      this.drawStop(stop, until, y, behind, above);
      from = until;
    }
    if (!step.stops.length || step.stops.at(-1).end !== null) run(step.end ?? this.steps.now, step.end === null);
    front.append(group);
    boxes.push({ left, right, y, high, decode: step.decode, steps: [step], merges: right - left < 2 && !step.stops.length, rect: group.lastChild });
  }

  part(from, until, y, high, attributes) {
    const left = Math.max(this.x(from), PAD), right = Math.max(this.x(until), PAD);
    return drawn("rect", { ...attributes, x: left.toFixed(2), width: Math.max(right - left, right > PAD ? 0.8 : 0).toFixed(2), y, height: high, rx: right - left > 6 ? 2 : 0 });
  }

  // A band from the suspended step up to the class that it made room for, and a mark where it stopped.
  drawStop(stop, until, y, behind, above) {
    const left = Math.max(this.x(stop.start), PAD), right = Math.max(this.x(until), PAD), by = this.steps.classes.indexOf(stop.by);
    if (right <= PAD) return;
    if (by >= 0) behind.append(drawn("rect", { class: `room ${colour(by)}`, x: left, width: Math.max(1, right - left), y: this.top(by), height: y - this.top(by) }));
    if (this.x(stop.start) >= PAD) above.append(drawn("path", { class: "mark", d: `M ${left - 3.5} ${y - 6} h 7 l -3.5 5 z` }));
  }

  drawArrivals(above) {
    const { steps } = this;
    for (const request of steps.requests.values()) {
      if (request.arrived === null || request.arrived < steps.now - this.span) continue;
      const x = this.x(request.arrived), base = this.top(request.level) + HEIGHT;
      above.append(drawn("line", { class: `arrival ${colour(request.level)}`, x1: x, x2: x, y1: base + 2, y2: base + 8 }));
    }
  }

  summary() {
    const parts = this.steps.classes.map((name, level) => `${name} ${count(this.shown(level).length, "step")}`);
    const stops = this.steps.stops().filter((stop) => stop.start > this.steps.now - this.span).length;
    return `Steps of the last ${this.span} s: ${parts.join(", ")}, ${count(stops, "suspension")}.`;
  }

  point(event) {
    const box = this.node.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    const level = this.boxes.findIndex((_, index) => y >= this.top(index) - LABEL && y <= this.top(index) + HEIGHT + GAP / 2);
    if (level < 0) return;
    const distance = (found) => Math.max(found.left - x, x - found.right, 0);
    const near = this.boxes[level].filter((found) => distance(found) < 8).sort((a, b) => distance(a) - distance(b))[0];
    if (near) this.choose(near.steps.length === 1 ? near.steps[0] : near.steps[Math.floor(near.steps.length * Math.min(0.999, Math.max(0, (x - near.left) / Math.max(1, near.right - near.left))))]);
  }

  press(event) {
    const levels = this.steps.classes.length;
    const step = this.chosen, list = step ? this.shown(step.level) : [];
    const index = list.indexOf(step), move = { ArrowLeft: -1, ArrowRight: 1, Home: -list.length, End: list.length }[event.key];
    if (event.key === "Escape") this.choose(null);
    else if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return;
    else if (!step || index < 0) this.choose([...Array(levels).keys()].flatMap((level) => this.shown(level)).sort((a, b) => b.start - a.start)[0] ?? null);
    else if (move) this.choose(list[Math.min(list.length - 1, Math.max(0, index + move))]);
    else this.choose(this.beside(step, event.key === "ArrowUp" ? -1 : 1));
    event.preventDefault();
  }

  // The step of the next class in that direction that is nearest in time.
  beside(step, direction) {
    for (let level = step.level + direction; level >= 0 && level < this.steps.classes.length; level += direction) {
      const list = this.shown(level).sort((a, b) => Math.abs(a.start - step.start) - Math.abs(b.start - step.start));
      if (list.length) return list[0];
    }
    return step;
  }

  choose(step) {
    this.chosen = step;
    this.outline();
    this.describe();
  }

  outline() {
    const svg = this.node.firstElementChild;
    svg?.querySelector(".chosen")?.remove();
    const box = this.chosen && this.boxes[this.chosen.level]?.find((found) => found.steps.includes(this.chosen));
    if (box) svg.append(drawn("rect", { class: "chosen", x: box.left - 2, y: box.y - 2, width: Math.max(1, box.right - box.left) + 4, height: box.high + 4, rx: 3 }));
  }

  describe() {
    const step = this.chosen;
    if (!step) return this.detail.replaceChildren();
    const now = this.steps.now, end = step.end ?? now;
    const lost = step.stops.reduce((sum, stop) => sum + (stop.end ?? now) - stop.start, 0);
    const facts = [["from start to end", seconds(end - step.start)], ["computing", seconds(end - step.start - lost)],
      ["tokens", String(step.tokens ?? NONE)], ["requests", String(step.size ?? NONE)], ["steps suspended below it", String(step.depth ?? NONE)], ["lane of buffers", String(step.lane ?? NONE)]];
    if (step.copied) facts.push(["KV blocks to and from the host", `${step.copied.offloaded} and ${step.copied.restored} in ${seconds(step.copied.copying)}`]);
    const made = [element("h3", {}, swatch(step.level), `Step ${step.number}: ${step.name} ${step.decode ? "decode" : "prefill"}${step.end === null ? ", not finished" : ""}`),
      element("dl", { class: "facts" }, ...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))))];
    const lists = [["Suspended", step.stops.map((stop) => `for ${stop.by === "budget" ? "others, its time slice had ended" : stop.by}, ${stop.where}, layer ${stop.layer}: ${seconds((stop.end ?? now) - stop.start)}${stop.end === null ? " so far" : ""}`)],
      ["Requests that began in it", step.requests.map((request) => `${request.id ?? "(arrived earlier)"}, ${seconds(request.response)} after it arrived`)]];
    for (const [title, items] of lists) {
      if (!items.length) continue;
      const more = items.length > 8 ? [element("li", {}, `and ${items.length - 8} more`)] : [];
      made.push(element("p", { class: "quiet" }, title), element("ul", {}, ...items.slice(0, 8).map((item) => element("li", {}, item)), ...more));
    }
    return this.detail.replaceChildren(...made);
  }
}

// SPDX-License-Identifier: Apache-2.0
"use strict";
// From numbers to words. Nothing here becomes markup: elements get text, and nothing else.

const NONE = "–";

function significant(value, digits = 3) {
  if (value === 0) return "0";
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(places, 6));
}

function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 0.0009995) return `${significant(value * 1e6)} µs`;
  if (value < 0.9995) return `${significant(value * 1e3)} ms`;
  if (value < 99.95) return `${significant(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.floor(value % 3600 / 60)} min`;
}

// What somebody has configured, without the zeros of a measurement.
const given = (text) => text.replace(/(\.\d*?)0+(?= )/, "$1").replace(/\.(?= )/, "");

function bytes(value) {
  let unit = 0;
  for (; value >= 1024 && unit < 4; unit += 1) value /= 1024;
  return `${unit ? significant(value) : value} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

// Never rounded up to all of it, nor to the goal.
const percent = (share) => share === null ? NONE : `${Math.floor(share * 1000 + 1e-9) / 10} %`;
const rate = (value) => value >= 100 ? String(Math.round(value)) : significant(value, value < 1 ? 2 : 3);
const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

// An element with text or children, and attributes.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Only what differs is touched: a selection stays, and a screen reader hears of changes alone.
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const byId = (id) => document.getElementById(id);
const colour = (level) => `c${level % 8}`;

const swatch = (level) => element("i", { class: `swatch ${colour(level)}`, "aria-hidden": "true" });

// A name may be broken after an underscore, where there is too little room.
function named(name, level) {
  const parts = name.split(/(?<=_)/).flatMap((part, index) => index ? [element("wbr"), part] : [part]);
  const text = element("span", {}, ...parts);
  if (level >= 0) text.prepend(swatch(level));
  return text;
}

// Rows of text or elements; a cell [text, "number"] stands to the right.
function rows(body, list) {
  const made = list.map((cells) => element("tr", {}, ...cells.map((cell, index) => {
    const [content, kind] = Array.isArray(cell) ? cell : [cell, ""];
    return element(index ? "td" : "th", { ...(index ? {} : { scope: "row" }), class: kind }, content);
  })));
  const same = body.rows.length === made.length && made.every((row, index) => row.isEqualNode(body.rows[index]));
  if (!same) body.replaceChildren(...made);
}

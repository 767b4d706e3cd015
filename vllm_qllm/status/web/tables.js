// SPDX-License-Identifier: Apache-2.0
"use strict";
// Suspensions, tenants, and the policy with its limits.

function showSuspensions(status) {
  const levels = status.classes.map((cls) => cls.name);
  // The most urgent class makes room for nobody, unless a policy of one's own ends its slices. Of many
  // classes only those pairs are shown of which there is something to say.
  const shown = status.suspensions.filter((pair) => pair.suspensions || (levels.length < 3 && levels.indexOf(pair.of) > 0));
  byId("suspensions-none").hidden = shown.length > 0;
  rows(byId("suspensions"), shown.map((pair) => [
    named(pair.of, levels.indexOf(pair.of)),
    pair.by === "budget" ? "others (its time slice had ended)" : named(pair.by, levels.indexOf(pair.by)),
    [String(pair.suspensions), "number"],
    [pair.nested_steps === null ? NONE : String(pair.nested_steps), "number"],
  ]));
}

function showTenants(status) {
  const tenants = status.tenants;
  byId("tenants-part").hidden = !tenants;
  if (!tenants) return;
  const levels = status.classes.map((cls) => cls.name);
  const limits = Object.entries(tenants.max_in_flight).map(([name, most]) => `${name} ${most}`);
  say(byId("tenants-note"), `${count(tenants.configured, "tenant")} in the file. `
    + (limits.length ? `In flight at most, with what is more urgent: ${limits.join(", ")}. ` : "")
    + (tenants.left_out ? `${tenants.left_out} more rows are on /metrics.` : "")
    + (tenants.rows.length ? "" : "Nobody has asked for anything yet."));
  rows(byId("tenants"), tenants.rows.map((row) => [
    row.tenant === "none" ? "(not known)" : row.tenant,
    row.class === "none" ? "(none)" : named(row.class, levels.indexOf(row.class)),
    [String(row.requests), "number"], [String(row.in_flight), "number"], [String(row.refused), "number"],
    Object.entries(row.reasons).map(([reason, number]) => `${reason} ${number}`).join(", ") || NONE,
  ]));
}

function showPolicy(status) {
  const policy = status.policy;
  const share = (value) => given(`${significant(value * 100)} %`);
  const places = { expert: "around attention and among experts", layer: "before attention", none: "nowhere: between steps only" };
  const facts = [
    ["policy", policy.name],
    ["a step can be suspended", places[policy.yield_points]],
    ["KV kept for the most urgent class", share(policy.reserved_kv)],
    ["slowdown by riders, at most", `${policy.ride_slowdown} times`],
    ["preemptions of a request, at most", String(policy.max_preemptions)],
    ["standstill before /health fails", policy.stall_limit_ms ? seconds(policy.stall_limit_ms / 1000) : "any"],
    ["spared from preemption", `from ${share(policy.progress_cap)} of its tokens on`],
    ["KV of parked requests, at most", share(policy.park_fraction)],
    ["KV on the host", policy.spill_bytes ? `${bytes(policy.spill_bytes)} a worker` : "none: it is computed again"],
    ["KV of a finished turn is kept", policy.program_ttl_ms ? `for ${given(seconds(policy.program_ttl_ms / 1000))}` : "by the prefix cache alone"],
    ["order of equals", `by ${policy.order}`],
    ["timeline", status.timeline ? `the last ${count(status.timeline, "event")}` : "off"],
    ["tenants", status.tenants ? String(status.tenants.configured) : "off: everybody may ask for every class"],
  ];
  const made = facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  const list = byId("policy");
  if (!made.every((fact, index) => list.children[index] && fact.isEqualNode(list.children[index]))) list.replaceChildren(...made);
}

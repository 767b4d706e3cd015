// SPDX-License-Identifier: Apache-2.0
"use strict";
// Asks again and again: never twice at a time, never while nobody looks, and less often while nothing answers.

const PATIENCE_MS = 10_000, MOST_MS = 10_000;

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

class Poller {
  // address(): relative to the page; headers(): of the request; answered(document), failed(error).
  constructor(everyMs, { address, headers, answered, failed }) {
    Object.assign(this, { everyMs, address, headers, answered, failed, failures: 0, timer: null, asking: null, stopped: true });
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) clearTimeout(this.timer);
      else if (!this.stopped) this.now();
    });
  }

  now() {
    this.stopped = false;
    clearTimeout(this.timer);
    this.asking?.abort();
    this.ask();
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    this.asking?.abort();
    this.asking = null;
  }

  async ask() {
    const asking = this.asking = new AbortController();
    const patience = setTimeout(() => asking.abort(new Error("no answer in 10 s")), PATIENCE_MS);
    let again = true;
    try {
      const answer = await fetch(this.address(), { headers: this.headers(), signal: asking.signal, cache: "no-store", credentials: "same-origin" });
      const found = await answer.json().catch(() => null);
      if (this.asking !== asking) return;
      if (!answer.ok || found === null) throw new Refused(answer.status, found?.error?.message ?? found?.detail ?? `status ${answer.status}`);
      this.failures = 0;
      this.answered(found);
    } catch (error) {
      if (this.asking !== asking) return;
      this.failures += 1;
      again = this.failed(error) !== false;
      this.stopped = !again;
    } finally {
      clearTimeout(patience);
      if (this.asking === asking) {
        this.asking = null;
        const wait = Math.min(MOST_MS, this.everyMs * 2 ** Math.min(this.failures, 4));
        if (again && !document.hidden) this.timer = setTimeout(() => this.ask(), wait);
      }
    }
  }
}

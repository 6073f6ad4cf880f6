// The log: follows the latest entry until its reader looks further back, hides what a filter does not want, brings
// earlier rows, and shows an entry's whole body on demand. It never holds more than a thousand rows.
import { tellTime } from "./time.js";

const MOST = 1_000; // rows
const MOST_SEARCHES = 5; // requests for earlier rows by one press of the button
const TYPING = 200; // milliseconds

export class Log {
  /** @param {HTMLElement} main the page of a pipeline */
  constructor(main) {
    const find = (name) => main.querySelector(`[data-log-${name}]`);
    this.main = main;
    this.id = main.dataset.pipeline;
    this.rows = main.querySelector("[data-log]");
    this.box = find("box");
    this.form = find("filter");
    this.earlier = find("earlier");
    this.nothing = find("nothing");
    this.latest = find("latest");
    this.clear = find("clear");
    this.counted = find("count");
    this.whole = Number(this.rows.dataset.after) + 1; // from this row on all are here, whatever the filter
    this.next = this.whole; // earlier ones are asked for before this one
    this.behind = 0; // rows that came while the reader looked further back
    this.cut = false; // whether the latest rows are not here
    this.choice = {};
    this.listen();
    this.choose();
    this.toTheEnd();
  }

  /**
   * Take the rows that came.
   * @param {string[]} rows
   * @param {boolean} anew whether they are in place of all that are here
   * @param {number} after the `seq` that the first of them follows
   */
  take(rows, anew, after) {
    if (!rows.length && !anew) return;
    if (anew) {
      this.rows.replaceChildren();
      this.whole = this.next = after + 1;
      this.cut = false;
      this.behind = 0;
    }
    const following = anew || this.following;
    if (this.cut || (!following && this.rows.childElementCount + rows.length > MOST)) {
      this.cut = true;
      this.behind += rows.length;
    } else {
      const shown = this.put("beforeend", rows);
      if (following) this.shorten();
      else this.behind += shown;
    }
    this.tell();
    if (following) this.toTheEnd();
  }

  get following() {
    return !this.cut && this.box.scrollTop + this.box.clientHeight >= this.box.scrollHeight - 24;
  }

  toTheEnd() {
    this.box.scrollTop = this.box.scrollHeight;
  }

  listen() {
    let typing;
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.choose(), TYPING);
    });
    this.form.addEventListener("reset", () => setTimeout(() => this.choose()));
    this.earlier.querySelector("button").addEventListener("click", () => this.bringEarlier());
    this.latest.addEventListener("click", () => this.bringLatest());
    this.box.addEventListener("scroll", () => {
      if (this.behind && this.following) {
        this.behind = 0;
        this.tell();
      }
    }, { passive: true });
    this.rows.addEventListener("toggle", (event) => event.target.open && this.open(event.target), true);
    this.rows.addEventListener("keydown", (event) => this.move(event));
    this.rows.addEventListener("focusin", ({ target }) => target.matches("summary") && this.makeReachable(target));
  }

  /** Show what the filter wants. Rows that were fetched for another filter go: others between them may be wanted now. */
  choose() {
    this.choice = Object.fromEntries([...new FormData(this.form)].filter(([, value]) => value.trim()));
    for (const row of [...this.rows.children]) {
      if (Number(row.dataset.seq) < this.whole) row.remove();
      else row.hidden = !this.wants(row);
    }
    this.next = this.whole;
    this.clear.hidden = !this.filtered;
    this.makeReachable();
    this.tell();
    this.toTheEnd();
  }

  get filtered() {
    return Object.keys(this.choice).length > 0;
  }

  wants(row) {
    const { actor, kind, level, q } = this.choice;
    if (actor && row.dataset.actor !== actor) return false;
    if (kind && row.dataset.group !== kind) return false;
    if (level && LEVELS.indexOf(row.dataset.level) < LEVELS.indexOf(level)) return false;
    if (!q) return true;
    const said = row.querySelector(".message").textContent;
    return `${said} ${row.dataset.kind.replaceAll("_", " ")} ${row.dataset.actor}`.toLowerCase().includes(q.toLowerCase());
  }

  /** Put rows where they belong; returns how many of them are shown. */
  put(where, rows) {
    const there = new Set(this.rows.children);
    this.rows.insertAdjacentHTML(where, rows.join(""));
    let shown = 0;
    for (const row of this.rows.children) {
      if (there.has(row)) continue;
      row.hidden = !this.wants(row);
      row.querySelector("summary").tabIndex = -1;
      shown += row.hidden ? 0 : 1;
    }
    tellTime(this.rows);
    this.makeReachable();
    return shown;
  }

  /** Let the oldest rows go; "Earlier" brings them back. */
  shorten() {
    const many = this.rows.childElementCount - MOST;
    if (many <= 0) return;
    for (const row of [...this.rows.children].slice(0, many)) row.remove();
    const first = Number(this.rows.firstElementChild.dataset.seq);
    this.next = first;
    this.whole = Math.max(this.whole, first);
  }

  async bringEarlier() {
    const button = this.earlier.querySelector("button");
    if (button.disabled) return;
    button.disabled = true;
    const choice = JSON.stringify(this.choice);
    try {
      for (let asked = 0; asked < MOST_SEARCHES && this.next > 1; asked += 1) {
        const found = await this.ask(this.next);
        if (JSON.stringify(this.choice) !== choice) return;
        const above = this.box.scrollHeight - this.box.scrollTop;
        this.put("afterbegin", found.rows);
        this.next = found.next ?? 1;
        if (!this.filtered) this.whole = this.next;
        this.dropLatest();
        this.box.scrollTop = this.box.scrollHeight - above;
        this.tell();
        if (found.rows.length) break;
      }
    } catch (error) {
      this.counted.textContent = `Earlier entries cannot be read: ${error.message}`;
    } finally {
      button.disabled = false;
    }
  }

  /** Whoever reads far back needs no latest rows. */
  dropLatest() {
    const many = this.rows.childElementCount - MOST;
    if (many <= 0) return;
    this.cut = true;
    for (const row of [...this.rows.children].slice(-many)) row.remove();
  }

  async bringLatest() {
    if (this.cut) {
      try {
        let found, seq;
        do {
          seq = Number(this.main.dataset.seq);
          // Without the filter, so that every row from the first of them on is here.
          found = await this.ask(seq + 1, {});
        } while (seq !== Number(this.main.dataset.seq)); // what came meanwhile was not taken
        this.take(found.rows, true, (found.next ?? 1) - 1);
      } catch (error) {
        this.counted.textContent = `The latest entries cannot be read: ${error.message}`;
        return;
      }
    }
    this.behind = 0;
    this.toTheEnd();
    this.tell();
  }

  async ask(before, choice = this.choice) {
    const answer = await fetch(`/pipelines/${encodeURIComponent(this.id)}/log?${new URLSearchParams({ ...choice, before })}`);
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.detail);
    return told;
  }

  /** Say how much of the log is to be seen. */
  tell() {
    const all = this.rows.childElementCount;
    const shown = this.filtered ? [...this.rows.children].filter((row) => !row.hidden).length : all;
    const head = Number(this.main.dataset.seq);
    const from = this.next > 1 ? `, back to seq ${this.next.toLocaleString("en")}` : "";
    this.counted.textContent = this.filtered
      ? `${shown.toLocaleString("en")} match${shown === 1 ? "es" : ""}${from}`
      : `${all.toLocaleString("en")} of ${head.toLocaleString("en")}`;
    this.nothing.hidden = shown > 0;
    this.earlier.hidden = this.next <= 1;
    this.latest.hidden = !this.behind && !this.cut;
    this.latest.textContent = this.behind ? `${this.behind.toLocaleString("en")} new` : "To the latest";
  }

  /** Arrow keys go from row to row; Tab finds one of them. */
  move(event) {
    const summary = event.target.closest("summary");
    if (!summary) return;
    const rows = [...this.rows.children].filter((row) => !row.hidden);
    const here = rows.indexOf(summary.closest("li"));
    const wanted = { ArrowUp: here - 1, ArrowDown: here + 1, Home: 0, End: rows.length - 1 }[event.key];
    if (wanted === undefined) return;
    event.preventDefault();
    rows[wanted]?.querySelector("summary").focus();
  }

  makeReachable(summary) {
    const rows = [...this.rows.children];
    const known = this.reachable?.isConnected && !this.reachable.closest("li").hidden ? this.reachable : null;
    const wanted = summary ?? known ?? rows.findLast((row) => !row.hidden)?.querySelector("summary");
    if (!this.reachable) for (const row of rows) row.querySelector("summary").tabIndex = -1;
    else this.reachable.tabIndex = -1;
    if (wanted) wanted.tabIndex = 0;
    this.reachable = wanted;
  }

  /** Show the whole entry, once. */
  async open(details) {
    const link = details.querySelector("a");
    const shown = details.querySelector(".entry");
    if (!link || shown.dataset.asked) return;
    shown.dataset.asked = "";
    try {
      const answer = await fetch(link.href);
      const told = await answer.json();
      if (!answer.ok) throw new Error(told.detail);
      shown.replaceChildren(...whole(told.items[0]));
      details.scrollIntoView({ block: "nearest" });
    } catch (error) {
      delete shown.dataset.asked;
      link.textContent = `It cannot be read: ${error.message}. Open it by itself.`;
    }
  }
}

const LEVELS = ["debug", "info", "warning", "error"];

/** An entry as elements: its body, and what chains it to the one before. */
function whole({ body, hash, prev_hash, attempt, at }) {
  const text = document.createElement("pre");
  text.tabIndex = 0;
  text.textContent = JSON.stringify(body, null, 2).replace(STEERING, escaped);
  const facts = document.createElement("dl");
  for (const [name, value] of Object.entries({ at, attempt, hash, "previous hash": prev_hash })) {
    const term = document.createElement("dt");
    const said = document.createElement("dd");
    term.textContent = name;
    said.textContent = value;
    facts.append(term, said);
  }
  return [text, facts];
}

// What would make text run in another direction than it is written, or hide it.
const STEERING = /[\u007f-\u009f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]/g;
const escaped = (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;

// A pipeline's page: its parts as the server draws them, the text of running turns, and the log.
import { openActing } from "./acting.js";
import { openCheckpoints } from "./checkpoints.js";
import { listen } from "./connection.js";
import { letCopy } from "./copying.js";
import { Log } from "./log.js";
import { morph } from "./morph.js";
import { openReplay } from "./replay.js";
import { tellTime } from "./time.js";
import { openTimeline } from "./timeline.js";

const TURNS_KEPT = 50;
const LONGEST_WAIT = 250; // milliseconds that a drawing waits while the page is busy
const whenIdle = window.requestIdleCallback ?? ((then) => setTimeout(then)); // Safari has none

export function openPipeline(main) {
  const page = new PipelinePage(main);
  openActing();
  openReplay(page);
  letCopy(main);
  openCheckpoints(main);
  openTimeline(main);
  if (!("replay" in main.dataset)) page.follow();
}

/** Whether a box shows its end, so that it should go on to. */
const atEnd = (box) => box.scrollTop + box.clientHeight >= box.scrollHeight - 8;

class PipelinePage {
  constructor(main) {
    this.main = main;
    this.id = main.dataset.pipeline;
    this.log = new Log(main);
    this.seq = Number(main.dataset.seq);
    this.waiting = null; // a drawing that came and is not shown yet
    this.texts = new Map(); // of running turns, by number
    this.boxes = new WeakSet(); // those that follow their end, once they are there
  }

  /** Keep up with the pipeline for as long as the page is open. */
  follow() {
    this.connection = listen(
      () => `/live?${new URLSearchParams({ pipeline_id: this.id, seq: this.seq })}`,
      (message) => (message.type === "text" ? this.hear(message) : this.take(message)),
    );
  }

  /** Show a drawing soon: what came while the page was busy is shown as one, so that a slow page never falls behind. */
  take(drawn) {
    const { waiting } = this;
    if (!waiting) whenIdle(() => this.waiting && this.show(this.waiting), { timeout: LONGEST_WAIT });
    const { rows, rows_after } = drawn.rows_after === waiting?.seq ? waiting : { rows: [], rows_after: drawn.rows_after };
    this.waiting = { ...drawn, parts: { ...waiting?.parts, ...drawn.parts }, rows: [...rows, ...drawn.rows], rows_after };
  }

  /** Keep up no longer; `follow` goes on from what the page has by then. */
  pause() {
    this.connection?.stop();
    this.connection = this.waiting = null;
    this.texts.clear();
  }

  /** Show what was drawn anew. */
  show({ seq, parts, rows, rows_after }) {
    this.waiting = null;
    const following = [...this.main.querySelectorAll("[data-follow]")].filter(atEnd);
    for (const [name, html] of Object.entries(parts)) {
      morph(this.main.querySelector(`[data-part="${name}"]`), html);
    }
    const anew = rows_after !== this.seq;
    this.seq = seq;
    this.main.dataset.seq = seq;
    this.log.take(rows, anew, rows_after);
    this.fill();
    tellTime(this.main);
    for (const box of this.main.querySelectorAll("[data-follow]")) {
      if (following.includes(box) || !this.boxes.has(box)) box.scrollTop = box.scrollHeight;
      this.boxes.add(box);
    }
    this.main.dispatchEvent(new Event("shown"));
  }

  /** Take the next piece of what a running turn says. */
  hear({ turn, anew, text }) {
    this.texts.set(turn, (anew ? "" : (this.texts.get(turn) ?? "")) + text);
    for (const earlier of this.texts.keys()) if (earlier < turn - TURNS_KEPT) this.texts.delete(earlier);
    this.fill();
  }

  /** Put the texts of running turns where the page has room for them. */
  fill() {
    for (const element of this.main.querySelectorAll("[data-stream]")) {
      const text = this.texts.get(Number(element.dataset.stream)) ?? "";
      if (element.textContent !== text) {
        const boxes = [element, element.closest("[data-follow]")].filter((box) => box && atEnd(box));
        element.textContent = text;
        for (const box of boxes) box.scrollTop = box.scrollHeight;
      }
    }
  }
}

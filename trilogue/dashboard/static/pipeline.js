// A pipeline's page: its parts as the server draws them, the text of running turns, and the log.
import { listen } from "./connection.js";
import { morph } from "./morph.js";
import { tellTime } from "./time.js";

const TURNS_KEPT = 50;

export function openPipeline(main) {
  const page = new PipelinePage(main);
  if (!("replay" in main.dataset)) page.follow();
}

class PipelinePage {
  constructor(main) {
    this.main = main;
    this.id = main.dataset.pipeline;
    this.log = main.querySelector("[data-log]");
    this.seq = Number(main.dataset.seq);
    this.texts = new Map(); // of running turns, by number
  }

  /** Keep up with the pipeline for as long as the page is open. */
  follow() {
    listen(
      () => `/live?${new URLSearchParams({ pipeline_id: this.id, seq: this.seq })}`,
      (message) => (message.type === "text" ? this.hear(message) : this.show(message)),
    );
  }

  /** Show what was drawn anew. */
  show({ seq, parts, rows, rows_after }) {
    for (const [name, html] of Object.entries(parts)) {
      morph(this.main.querySelector(`[data-part="${name}"]`), html);
    }
    if (rows_after !== this.seq) this.log.replaceChildren();
    this.log.insertAdjacentHTML("beforeend", rows.join(""));
    this.seq = seq;
    this.main.dataset.seq = seq;
    this.fill();
    tellTime(this.main);
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
        const following = element.scrollTop + element.clientHeight >= element.scrollHeight - 4;
        element.textContent = text;
        if (following) element.scrollTop = element.scrollHeight;
      }
    }
  }
}

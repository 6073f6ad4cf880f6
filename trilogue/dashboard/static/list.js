// The list of pipelines: kept up to date, and narrowed while somebody types. Its query is the page's address.
import { listen } from "./connection.js";
import { morph } from "./morph.js";
import { tellTime } from "./time.js";

const PAUSE = 1_000; // milliseconds between two looks that nobody asked for
const TYPING = 250; // of quiet after which what was typed is looked for
const UNSETTLED = 5_000; // after which to look again where something changes without being recorded

/** Keep the list of `main` up to date for as long as the page is open. */
export function openList(main) {
  const list = new List(main);
  listen(
    () => "/live/list",
    () => list.soon(),
  );
}

class List {
  constructor(main) {
    this.list = main.querySelector("[data-list]");
    this.state = main.querySelector("[data-list-state]");
    this.search = main.querySelector("[data-search]");
    this.looked = Date.now();
    this.stale = false;
    this.search.addEventListener("submit", (event) => {
      event.preventDefault();
      this.narrow();
    });
    this.search.q.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.narrow(), TYPING);
    });
    this.search.project.addEventListener("change", () => this.narrow());
    this.list.addEventListener("click", (event) => this.follow(event));
    this.list.addEventListener("animationend", ({ target }) => target.classList.remove("stirred"));
    addEventListener("popstate", () => this.arrive());
    document.addEventListener("visibilitychange", () => this.stale && this.soon());
    this.settle(true);
  }

  /** Look again, though not at once where that was just done, and not while nobody sees it. */
  soon() {
    this.stale = true;
    if (this.asking || this.timer || document.hidden) return;
    this.timer = setTimeout(() => this.look(), Math.max(0, this.looked + PAUSE - Date.now()));
  }

  /** Look now; `asked` by the reader, who is to be told what was found. */
  async look(asked = false) {
    clearTimeout(this.timer);
    clearTimeout(this.settling);
    this.timer = null;
    this.stale = false;
    this.looked = Date.now();
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    let fine = false;
    try {
      const answer = await fetch(`/list${location.search}`, { signal: asking.signal });
      const html = await answer.text();
      // A query that makes no sense is answered by a list that says so.
      fine = answer.status < 500 && (answer.headers.get("Content-Type") ?? "").startsWith("text/html");
      if (fine) this.show(html, asked);
      else this.state.textContent = "The list cannot be read at the moment. It comes back by itself.";
    } catch (error) {
      if (asking.signal.aborted) return; // for a newer look
      if (!(error instanceof TypeError)) throw error; // the server is away, which the page's connection says
    } finally {
      if (this.asking === asking) this.asking = null;
    }
    if (this.stale) this.soon();
    this.settle(fine);
  }

  settle(fine) {
    clearTimeout(this.settling);
    if (!fine || this.list.querySelector("[data-unsettled]")) this.settling = setTimeout(() => this.soon(), UNSETTLED);
  }

  show(html, asked) {
    const rows = () => this.list.querySelectorAll("[data-stands]");
    const before = new Map([...rows()].map(({ dataset }) => [dataset.key, dataset.stands]));
    morph(this.list, html);
    tellTime(this.list);
    const found = this.list.querySelector("[data-found]")?.dataset.found ?? "0";
    this.state.textContent = asked ? `${found} pipeline${found === "1" ? "" : "s"}` : "";
    if (asked) return;
    for (const row of rows()) row.classList.toggle("stirred", before.get(row.dataset.key) !== row.dataset.stands);
  }

  /** Have the address say what the search fields say, and look. */
  narrow() {
    clearTimeout(this.typing);
    const query = new URLSearchParams(location.search);
    query.delete("cursor");
    for (const { name, value } of [this.search.q, this.search.project]) {
      if (value.trim()) query.set(name, value);
      else query.delete(name);
    }
    const address = query.size ? `/?${query}` : "/";
    if (address === location.pathname + location.search) return;
    history.replaceState(null, "", address);
    this.look(true);
  }

  /** Links to another list change this one: the reader keeps what is written above it. */
  follow(event) {
    const link = event.target.closest("a");
    if (!link || link.pathname !== "/" || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    const paged = Boolean(link.closest(".pages"));
    history.pushState(null, "", link.href);
    this.arrive().then(() => paged && this.search.closest("section").scrollIntoView());
  }

  /** The address has changed. */
  arrive() {
    const query = new URLSearchParams(location.search);
    this.search.q.value = query.get("q") ?? "";
    this.search.project.value = query.get("project") ?? "";
    return this.look(true);
  }
}

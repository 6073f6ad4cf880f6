// Replay: a slider over the entries that shows the page as it stood after each; at its end the page is the present's.
const LONGEST_WAIT = 2_000; // milliseconds that playing waits for the next moment, however long it was
const WRITING = 300; // milliseconds until the address says which moment is shown

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/**
 * Let the reader go back in time.
 * @param {object} page with `id`, `seq`, `main` (which hears `shown`), `show(drawn)`, `follow()` and `pause()`
 */
export function openReplay(page) {
  new Replay(page);
}

class Replay {
  constructor(page) {
    const bar = page.main.querySelector("[data-replay-bar]");
    const find = (name) => bar.querySelector(`[data-${name}]`);
    this.page = page;
    this.bar = bar;
    this.slider = find("slider");
    this.readout = find("readout");
    this.play = find("play");
    this.speed = find("speed");
    this.head = Number(page.main.dataset.head);
    this.back = find("present");
    this.asked = null; // the question under way
    this.wanted = null; // the moment that is to be shown
    this.next = null; // the moment after the one that is shown, and how long it was until then
    this.playing = 0; // raised with each start and end
    this.follow();
    this.listen();
    if (!this.past && new URLSearchParams(location.search).has("at")) this.address(null);
  }

  get past() {
    return "replay" in this.page.main.dataset;
  }

  listen() {
    const { bar, slider } = this;
    slider.addEventListener("input", () => this.go(Number(slider.value)));
    bar.addEventListener("click", (event) => {
      const button = event.target.closest("[data-step], [data-play], [data-present]");
      if (!button) return;
      if ("present" in button.dataset) {
        event.preventDefault();
        this.present();
      } else if ("play" in button.dataset) {
        if ("playing" in this.play.dataset) this.pause();
        else this.run();
      } else {
        this.go(Number(slider.value) + Number(button.dataset.step));
      }
    });
    bar.addEventListener("change", ({ target }) => {
      if ("jump" in target.dataset && target.value) this.go(Number(target.value));
    });
    bar.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    this.page.main.addEventListener("shown", () => this.follow());
  }

  /** Something was drawn: by the connection, which tells of the present, or because it was asked for here. */
  follow() {
    if (this.returning) {
      this.returning = false;
      const leaving = document.activeElement === this.back; // which goes with the replay
      delete this.page.main.dataset.replay;
      if (leaving) this.slider.focus({ preventScroll: true });
    }
    if (!this.past) {
      this.head = this.page.seq;
      this.tell(this.page.seq, this.readout.dataset.presently);
    }
    this.measure();
  }

  measure() {
    this.slider.max = this.head;
    const strip = this.bar.querySelector("[data-strip]");
    strip.dataset.strip = "measured";
    strip.setAttribute("viewBox", `1 0 ${Math.max(1, this.head - 1)} 1`);
    const jump = this.bar.querySelector("[data-jump]");
    const known = [...jump.options].some(({ value }) => value === this.slider.value);
    if (document.activeElement !== jump) jump.value = known && this.past ? this.slider.value : "";
  }

  tell(seq, text) {
    this.slider.max = this.head;
    this.slider.value = seq;
    this.slider.setAttribute("aria-valuetext", this.past ? text : `${seq} of ${this.head}, the present`);
    if (this.readout.textContent !== text) this.readout.textContent = text;
  }

  /** Show the page as it stood after an entry; beyond the last but one it is the present. */
  go(seq, playing = false) {
    if (!playing) this.pause();
    if (seq >= this.head) return this.present();
    this.wanted = Math.max(1, seq);
    if (!this.past || this.returning) {
      this.returning = false;
      this.page.pause();
      this.page.main.dataset.replay = "";
    }
    this.slider.value = this.wanted;
    return (this.asked ??= this.ask());
  }

  /** Ask for what is wanted, one question at a time: of those that came meanwhile only the last. */
  async ask() {
    this.leaving = new AbortController();
    try {
      while (this.wanted !== null) {
        const seq = this.wanted;
        const drawn = await this.moment(seq);
        if (this.wanted === seq) this.wanted = null;
        this.head = drawn.head;
        this.next = drawn.next;
        this.page.show(drawn);
        const text = `seq ${drawn.seq} of ${drawn.head} · ${clock.format(Date.parse(drawn.at))} · ${drawn.told}`;
        if (this.wanted === null) this.tell(drawn.seq, text);
        this.measure();
        this.address(drawn.seq);
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        this.pause();
        this.wanted = null;
        this.readout.textContent = `This moment cannot be shown: ${error.message}. Try it again.`;
      }
    } finally {
      this.asked = null;
    }
  }

  async moment(seq) {
    const query = new URLSearchParams({ at: seq, after: this.page.seq });
    const address = `/pipelines/${encodeURIComponent(this.page.id)}/moment?${query}`;
    const answer = await fetch(address, { signal: this.leaving.signal }).catch((error) => {
      throw error.name === "AbortError" ? error : new Error("the server does not answer");
    });
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? `the server answered ${answer.status}`);
    return answer.json();
  }

  /** Go back to the present, which the connection tells. */
  present() {
    this.pause();
    this.leaving?.abort();
    this.wanted = this.next = null;
    this.address(null);
    if (!this.past || this.returning) return this.tell(this.head, this.readout.dataset.presently);
    this.returning = true;
    this.tell(this.head, "Going back to the present…");
    this.page.follow();
    return null;
  }

  /** Play on from here, or from the beginning, at the speed of what happened. */
  async run() {
    const turn = ++this.playing;
    this.pressed(true);
    if (!this.past) await this.go(1, true);
    while (this.playing === turn && this.past && !this.returning) {
      if (!this.next) await this.go(Number(this.slider.value), true);
      if (!this.next || this.playing !== turn) break;
      const { seq, wait } = this.next;
      await sleep(Math.min(wait, LONGEST_WAIT) / Number(this.speed.value));
      if (this.playing === turn) await this.go(seq, true);
    }
    if (this.playing === turn) this.pause();
  }

  pause() {
    this.playing += 1;
    this.pressed(false);
  }

  pressed(playing) {
    this.play.toggleAttribute("data-playing", playing);
    this.play.ariaLabel = playing ? "Pause" : "Play";
  }

  /** Have the address say which moment is shown, once it stays for a little. */
  address(seq) {
    clearTimeout(this.writing);
    const write = () => {
      const url = new URL(location.href);
      if (seq === null) url.searchParams.delete("at");
      else url.searchParams.set("at", seq);
      history.replaceState(history.state, "", url);
    };
    if (seq === null) write();
    else this.writing = setTimeout(write, WRITING);
  }
}

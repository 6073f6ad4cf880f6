// Context documents: text files that are read here, in the browser, and go with the objective.

/** Those that were chosen, by name, as their text. */
export class Documents {
  /**
   * @param {HTMLElement} place with the file input and the list of what was chosen
   * @param {(text: string) => void} complain told what cannot be taken, and why
   */
  constructor(place, complain) {
    this.input = place.querySelector("[data-documents]");
    this.shown = place.querySelector("[data-chosen]");
    this.complain = complain;
    this.chosen = new Map();
    /** Resolves when all that was chosen is read. */
    this.read = Promise.resolve();
    this.input.addEventListener("change", () => {
      const files = [...this.input.files];
      this.input.value = ""; // the same file may be chosen again
      this.read = this.read.then(() => this.take(files));
    });
  }

  async take(files) {
    const { most, longest, whole } = Object.fromEntries(Object.entries(this.input.dataset).map(([name, value]) => [name, Number(value)]));
    const refused = [];
    for (const file of files) {
      const others = [...this.chosen].reduce((sum, [name, text]) => sum + (name === file.name ? 0 : text.length), 0);
      if (file.size > longest) refused.push(`${file.name} has ${file.size.toLocaleString("en")} bytes; at most ${longest.toLocaleString("en")}.`);
      else if (!this.chosen.has(file.name) && this.chosen.size >= most) refused.push(`${file.name} is one too many; at most ${most}.`);
      else if (others + file.size > whole - 2 ** 20) refused.push(`${file.name} is too much: all together may have ${whole / 2 ** 20 - 1} MiB.`);
      else {
        const text = await textOf(file);
        if (text === null) refused.push(`${file.name} is no plain text in UTF-8.`);
        else if (!text.trim()) refused.push(`${file.name} is empty.`);
        else this.chosen.set(file.name, text);
      }
    }
    this.show();
    if (refused.length) this.complain(refused.join(" "));
  }

  /** Forget them all. */
  clear() {
    this.chosen.clear();
    this.show();
  }

  show() {
    this.shown.replaceChildren(...[...this.chosen].map(([name, text]) => this.item(name, text)));
  }

  item(name, text) {
    const item = document.createElement("li");
    const called = document.createElement("span");
    called.className = "mono";
    called.dir = "auto";
    called.textContent = name;
    const size = document.createElement("span");
    size.className = "note";
    size.textContent = `${text.length.toLocaleString("en")} characters`;
    const away = document.createElement("button");
    away.type = "button";
    away.className = "plain";
    away.textContent = "Remove";
    away.setAttribute("aria-label", `Remove ${name}`);
    away.addEventListener("click", () => {
      this.chosen.delete(name);
      this.show();
      this.input.focus();
    });
    item.append(called, size, away);
    return item;
  }
}

async function textOf(file) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    return null;
  }
}

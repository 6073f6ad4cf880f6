// Acting on pipelines: dialogs whose forms go to the API as everybody's requests do, and short notices of what was done.

const NOTICE = 6_000; // milliseconds

/** What the server refused, or that it could not be asked. */
export class Refusal extends Error {
  /** @param {string} detail in words @param {string} code such as `invalid_timeout`; empty when nothing answered */
  constructor(detail, code = "") {
    super(detail);
    this.code = code;
  }
}

/** A key under which a request is carried out once; `crypto.randomUUID` is missing where the page came by plain HTTP. */
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * POST `body` to `path` of the API.
 * @param {string} path
 * @param {object} body
 * @param {string} [key] the same for the same request sent again, which is then carried out once
 * @returns {Promise<object>} the answer
 * @throws {Refusal}
 */
export async function act(path, body, key = newKey()) {
  let answer;
  try {
    answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": key },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Refusal("The server does not answer. Nothing that you wrote is lost: try again when it is back.");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refusal(told.detail ?? `The server answered ${answer.status}.`, told.error);
  return told;
}

/**
 * Say briefly what was done.
 * @param {string} text
 */
export function toast(text) {
  const notice = document.createElement("p");
  notice.className = "toast";
  notice.textContent = text;
  document.querySelector("[data-toasts]").append(notice);
  setTimeout(() => notice.remove(), NOTICE);
}

const askings = new Map(); // by the name of the dialog

/**
 * Open the dialog `dialog-<name>`.
 * @param {string} name
 * @param {HTMLElement} [opener] whose `data-hint-…` fill the elements with `data-hinted`, and hidden fields of that name
 */
export function openDialog(name, opener) {
  if (!askings.has(name)) askings.set(name, new Asking(document.getElementById(`dialog-${name}`)));
  askings.get(name).open(opener);
}

/** A dialog whose form goes to the API at `data-path`. What was filled in stays until it was done. */
class Asking {
  constructor(dialog) {
    this.dialog = dialog;
    this.form = dialog.querySelector("form");
    this.button = this.form.querySelector("[type=submit]");
    this.problem = this.form.querySelector("[data-problem]");
    this.done = ""; // what is said when it was done
    this.sent = null; // the request as it was sent last, with its key
    this.busy = false;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.busy) this.send();
    });
    this.form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
    });
  }

  open(opener) {
    this.done = this.form.dataset.done ?? "";
    this.sent = null;
    for (const [key, value] of Object.entries({ ...opener?.dataset })) {
      if (key.startsWith("hint")) this.hint(key.slice("hint".length).toLowerCase(), value);
    }
    this.complain("");
    this.dialog.showModal();
  }

  hint(name, value) {
    if (name === "done") this.done = value;
    for (const element of this.dialog.querySelectorAll(`[data-hinted="${name}"]`)) {
      if (element.nodeName === "INPUT") element.placeholder = `as before: ${value}`;
      else element.textContent = element.nodeName === "OPTION" ? `As before: ${value}` : value;
    }
    for (const field of this.form.querySelectorAll(`input[type="hidden"][name="${name}"]`)) field.value = value;
    for (const field of this.form.querySelectorAll(`[data-required-by="${name}"]`)) {
      field.required = value !== "";
      field.placeholder = field.required ? "needed, and kept on record" : "kept on record";
    }
  }

  /** What was filled in, by name: without what was left empty, numbers as numbers. */
  filledIn() {
    const body = {};
    for (const field of this.form.elements) {
      const value = field.value.trim();
      if (field.name && value !== "") body[field.name] = field.type === "number" ? Number(value) : value;
    }
    return body;
  }

  /** Say what is wrong, at the field that the code names. */
  complain(detail, code = "") {
    this.problem.textContent = detail;
    for (const field of this.form.elements) field.removeAttribute("aria-invalid");
    const field = code.startsWith("invalid_") && this.form.elements.namedItem(code.slice("invalid_".length));
    if (field && field.type !== "hidden") {
      field.setAttribute("aria-invalid", "true");
      field.focus();
    }
  }

  async send() {
    const body = this.filledIn();
    const text = JSON.stringify(body);
    if (this.sent?.text !== text) this.sent = { text, key: newKey() }; // sent again as it was: still only once
    const words = this.button.textContent;
    this.wait(true, this.form.dataset.busy);
    this.complain("");
    try {
      await act(this.form.dataset.path, body, this.sent.key);
      this.form.reset();
      this.dialog.close();
      toast(this.done);
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) throw refusal;
      this.complain(refusal.message, refusal.code);
    } finally {
      this.wait(false, words);
    }
  }

  wait(busy, words) {
    this.busy = busy;
    this.form.setAttribute("aria-busy", String(busy));
    this.button.setAttribute("aria-disabled", String(busy));
    this.button.textContent = words;
  }
}

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copies);
    toast("Copied");
  } catch {
    // A page that came by plain HTTP has no clipboard: its reader copies what is selected.
    getSelection().selectAllChildren(button.parentElement.querySelector("b"));
    toast("Selected: copy it with the keyboard");
  }
}

function showAll(button) {
  const open = button.getAttribute("aria-expanded") === "false";
  document.getElementById(button.getAttribute("aria-controls")).classList.toggle("clamp", !open);
  button.setAttribute("aria-expanded", String(open));
  button.textContent = open ? "Show less" : "Show all";
}

/** Let the page's buttons and dialogs act. */
export function openActing() {
  document.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-opens], [data-closes], [data-copies], [data-show-all]");
    if (!button || button.getAttribute("aria-disabled") === "true") return;
    if ("opens" in button.dataset) openDialog(button.dataset.opens, button);
    else if ("closes" in button.dataset) button.closest("dialog").close();
    else if ("copies" in button.dataset) copy(button);
    else showAll(button);
  });
}

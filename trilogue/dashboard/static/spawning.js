// Spawning a pipeline: the form goes to the API as everybody's requests do, once, and nothing that was typed is lost.
import { Refusal, act, newKey } from "./acting.js";
import { Documents } from "./documents.js";

const DRAFT = "trilogue.draft";
const FIELDS = { no_model_configured: "mode", no_local_server: "mode", external_id_taken: "external_id", too_large: "context" };
const PLAIN = ["objective", "mode", "model", "timeout", "agent_timeout", "max_cost", "max_tokens", "project", "external_id"];

/** Let the form of `main` spawn pipelines. */
export function openSpawning(main) {
  const form = new Spawning(main.querySelector("[data-spawning]"));
  main.addEventListener("click", ({ target }) => {
    const example = target.closest("[data-example]");
    if (example) form.suggest(example.dataset.example);
  });
}

class Spawning {
  constructor(form) {
    this.form = form;
    this.fields = form.elements;
    this.button = form.querySelector("[type=submit]");
    this.words = this.button.textContent;
    this.documents = new Documents(form.querySelector("[data-field=context]"), (said) => this.complain(said, "context"));
    form.noValidate = true; // what is wrong is said at the field, also where that is folded away
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    form.addEventListener("input", ({ target }) => {
      target.closest("[data-field]")?.querySelector(".problem")?.remove();
      target.removeAttribute("aria-invalid");
      this.answering();
    });
    addEventListener("pagehide", () => this.keep());
    addEventListener("pageshow", ({ persisted }) => persisted && this.rest());
    this.takeUp();
    this.answering();
    this.rest();
  }

  /** Put an example into the box. */
  suggest(text) {
    this.fields.objective.value = text;
    this.fields.objective.focus();
    this.fields.objective.dispatchEvent(new Event("input", { bubbles: true }));
  }

  /** Say which model would answer. */
  answering() {
    const model = this.fields.model.value.trim();
    const mode = model.split("/")[0] === "rehearsal" ? "rehearsal" : this.fields.mode.value;
    for (const said of this.form.querySelectorAll("[data-answers] > p")) {
      said.hidden = said.dataset.mode !== mode;
      const named = said.querySelector("[data-model]");
      if (named) named.textContent = model || named.dataset.model || "The first model served";
    }
  }

  /** What is asked for, as the API takes it: what was left empty is left out. */
  asked() {
    const asked = {};
    for (const name of PLAIN) {
      const { value, type } = this.fields[name];
      if (value.trim()) asked[name] = type === "number" ? Number(value) : name === "objective" ? value : value.trim();
    }
    const models = [...this.form.querySelectorAll("[data-role]")].filter(({ value }) => value.trim());
    if (models.length) asked.models = Object.fromEntries(models.map(({ name, value }) => [name, value.trim()]));
    const labels = this.fields.labels.value.split(",").map((label) => label.trim()).filter(Boolean);
    if (labels.length) asked.labels = labels;
    if (this.fields.hold.checked && !this.fields.hold.disabled) asked.auto_continue = false;
    if (this.documents.chosen.size) asked.context = [...this.documents.chosen].map(([name, text]) => ({ name, text }));
    return asked;
  }

  async submit() {
    if (this.busy) return;
    this.complain("");
    const wrong = [...this.fields].find((field) => field.willValidate && !field.checkValidity());
    if (wrong) return this.complain(wrong.validationMessage, wrong.closest("[data-field]").dataset.field, wrong);
    this.busy = true; // until the page of the pipeline is there
    this.button.setAttribute("aria-disabled", "true");
    this.button.textContent = "Starting…";
    await this.documents.read;
    const body = this.asked();
    const text = JSON.stringify(body);
    if (this.sent?.text !== text) this.sent = { text, key: newKey() }; // sent again as it was: still only once
    try {
      const { pipeline_id } = await act("/api/spawn", body, this.sent.key);
      this.form.reset();
      this.documents.clear();
      location.assign(`/pipelines/${encodeURIComponent(pipeline_id)}`);
    } catch (refusal) {
      this.rest();
      if (!(refusal instanceof Refusal)) throw refusal;
      this.complain(refusal.message, FIELDS[refusal.code] ?? refusal.code.replace(/^invalid_/, ""));
    }
  }

  /** Let the button be used. */
  rest() {
    this.busy = false;
    this.button.disabled = false;
    this.button.removeAttribute("aria-disabled");
    this.button.textContent = this.words;
  }

  /** Say what is wrong, at the field of that name where there is one; an empty text takes back what was said. */
  complain(said, name = "", field = null) {
    for (const problem of this.form.querySelectorAll("[data-field] .problem")) problem.remove();
    for (const element of this.fields) element.removeAttribute("aria-invalid");
    const place = name && this.form.querySelector(`[data-field="${CSS.escape(name)}"]`);
    this.form.querySelector("[data-problem]").textContent = place ? "" : said;
    if (!place || !said) return;
    const problem = document.createElement("p");
    problem.className = "problem";
    problem.dir = "auto";
    problem.id = `problem-${name}`;
    problem.setAttribute("role", "alert");
    problem.textContent = said.startsWith(`${name}: `) ? said.slice(name.length + 2) : said;
    place.append(problem);
    if (place.closest("details")) place.closest("details").open = true;
    const wrong = field ?? place.querySelector("input, select, textarea");
    wrong.setAttribute("aria-invalid", "true");
    wrong.setAttribute("aria-errormessage", problem.id);
    wrong.focus();
  }

  /** Keep what was typed for when the reader comes back to this page in this tab; files cannot be kept. */
  keep() {
    const typed = [...this.fields].filter((field) => field.name && (field.type === "checkbox" ? field.checked : field.value));
    const draft = typed.map((field) => [field.name, field.type === "checkbox" ? true : field.value]);
    try {
      if (draft.length) sessionStorage.setItem(DRAFT, JSON.stringify(draft));
      else sessionStorage.removeItem(DRAFT);
    } catch {
      // Storage is full or forbidden.
    }
  }

  takeUp() {
    let draft = [];
    try {
      draft = JSON.parse(sessionStorage.getItem(DRAFT) ?? "[]");
    } catch {
      // Storage is forbidden.
    }
    for (const [name, value] of draft) {
      const field = this.fields.namedItem(name);
      if (!field || field.disabled) continue;
      if (field.type === "checkbox") field.checked = value;
      else field.value ||= value;
      const folded = field.closest("details");
      if (folded) folded.open = true;
    }
  }
}

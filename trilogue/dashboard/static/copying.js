// Buttons that copy a document of the pipeline as it is in the ledger: `<button data-copy="address">`.
import { toast } from "./acting.js";

const SAID_FOR = 2_500; // milliseconds

/** Have the copy buttons of a page work, also those that are drawn later. */
export function letCopy(main) {
  main.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-copy]");
    if (button && !button.dataset.busy) copy(button);
  });
}

async function copy(button) {
  button.dataset.busy = "";
  const words = button.textContent;
  try {
    const answer = await fetch(button.dataset.copy);
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    await navigator.clipboard.writeText(await answer.text());
    button.textContent = "Copied";
    toast("Copied as Markdown");
  } catch {
    // Without a secure context, a permission or the server nothing can be copied, but what is shown can be selected.
    const shown = button.closest("[data-part]").querySelector(".prose");
    if (shown) getSelection().selectAllChildren(shown);
    toast(shown ? "Selected: copy it with the keyboard" : "It cannot be copied: the server does not give it");
  }
  setTimeout(() => {
    if (button.textContent === "Copied") button.textContent = words;
    delete button.dataset.busy;
  }, SAID_FOR);
}

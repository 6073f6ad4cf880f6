// The checkpoints: what differs between two of them, without leaving the page.
import { tellTime } from "./time.js";

/** Have the comparison of a pipeline's page shown where it is asked for. */
export function openCheckpoints(main) {
  const part = main.querySelector('[data-part="checkpoints"]');
  part.addEventListener("submit", async (event) => {
    const form = event.target.closest("[data-compare]");
    if (!form) return;
    event.preventDefault();
    const shown = part.querySelector("[data-compared]");
    shown.setAttribute("aria-busy", "true");
    shown.replaceChildren(...(await compared(`${form.getAttribute("action")}?${new URLSearchParams(new FormData(form))}`)));
    shown.removeAttribute("aria-busy");
    tellTime(shown);
  });
}

/** The middle of the page that compares; or why there is none. */
async function compared(address) {
  try {
    const page = new DOMParser().parseFromString(await (await fetch(address)).text(), "text/html");
    const found = page.querySelector("[data-comparison]");
    return [found ?? problem(page.querySelector("main p")?.textContent ?? "the server does not answer as expected")];
  } catch (error) {
    return [problem(error.message)];
  }
}

function problem(why) {
  const told = document.createElement("p");
  told.className = "problem";
  told.textContent = `They cannot be compared: ${why}`;
  return told;
}

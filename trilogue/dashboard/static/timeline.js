// The timeline's bars tell about themselves, to whoever points at one and to whoever comes by keyboard.

const APART = 10; // pixels between a bar and what is told about it

/** Tell about what `main [data-chart]` shows. The chart itself is the server's, and may be redrawn at any moment. */
export function openTimeline(main) {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.popover = "manual";
  tip.setAttribute("role", "tooltip");
  main.append(tip);

  let told = null; // the element that is told about

  function tell(element) {
    told = element;
    const text = element?.getAttribute("aria-label") ?? element?.dataset.told;
    if (!text) return hide();
    const [head, ...rest] = text.split("; ");
    const heading = document.createElement("b");
    heading.textContent = head;
    tip.replaceChildren(heading, rest.join(" · "));
    if (!tip.matches(":popover-open")) tip.showPopover();
    const { left, width, top, bottom } = element.getBoundingClientRect();
    const { width: wide, height: high } = tip.getBoundingClientRect();
    const x = Math.max(4, Math.min(left + width / 2 - wide / 2, innerWidth - wide - 4));
    tip.style.left = `${x}px`;
    tip.style.top = `${top - high - APART < 0 ? bottom + APART : top - high - APART}px`;
  }

  function hide() {
    told = null;
    if (tip.matches(":popover-open")) tip.hidePopover();
  }

  // What is told about may be redrawn, or go away.
  const chart = main.querySelector("[data-part=timeline]");
  new MutationObserver(() => told && (told.isConnected ? tell(told) : hide())).observe(chart, {
    subtree: true, childList: true, attributes: true,
  });

  const found = (event) => event.target.closest?.("[data-chart] .call, [data-chart] [data-told]");
  main.addEventListener("pointerover", (event) => {
    const element = found(event);
    if (element && element !== told) tell(element);
  });
  main.addEventListener("pointerout", () => told && told !== document.activeElement && hide());
  main.addEventListener("focusin", (event) => (found(event) ? tell(found(event)) : hide()));
  main.addEventListener("focusout", hide);
  document.addEventListener("scroll", () => told && tell(told), { passive: true });

  main.addEventListener("keydown", (event) => {
    const bar = event.target.closest?.("[data-chart] .call");
    if (!bar) return;
    if (event.key === "Escape") return hide();
    const bars = [...bar.parentNode.querySelectorAll(".call")];
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -bars.length, End: bars.length }[event.key];
    if (!step) return;
    event.preventDefault();
    bars[Math.max(0, Math.min(bars.indexOf(bar) + step, bars.length - 1))].focus({ preventScroll: true });
  });
}

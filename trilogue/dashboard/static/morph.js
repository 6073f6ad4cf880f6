// Changes what is on the page into what the server drew, and leaves alone all that is the same: focus, selection,
// what was opened and how far it was scrolled stay. Elements are known by `id`, `data-key`, or their place.
//   data-stream   its text comes by another way      data-keep   never changed (a form somebody is filling in)

/** Make the children of `target` those that `html` describes. */
export function morph(target, html) {
  const wanted = document.createElement("template");
  wanted.innerHTML = html;
  children(target, wanted.content);
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || "" : "");

function children(target, wanted) {
  const keyed = new Map();
  for (const child of target.children) if (keyOf(child)) keyed.set(keyOf(child), child);
  let place = target.firstChild;
  for (const next of [...wanted.childNodes]) {
    const key = keyOf(next);
    const known = key ? keyed.get(key) : place && !keyOf(place) && alike(place, next) ? place : null;
    if (known && alike(known, next)) {
      if (known === place) place = place.nextSibling;
      else target.insertBefore(known, place);
      one(known, next);
    } else {
      target.insertBefore(next, place);
    }
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}

const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName;

function one(known, wanted) {
  if (known.nodeType !== Node.ELEMENT_NODE) {
    if (known.nodeValue !== wanted.nodeValue) known.nodeValue = wanted.nodeValue;
    return;
  }
  if ("keep" in known.dataset) return;
  for (const { name, value } of wanted.attributes) if (known.getAttribute(name) !== value) known.setAttribute(name, value);
  for (const { name } of [...known.attributes]) {
    const readers = name === "open" && known.nodeName === "DETAILS"; // whether it is open is the reader's matter
    if (!wanted.hasAttribute(name) && !readers) known.removeAttribute(name);
  }
  if ("stream" in known.dataset) return;
  if (known.nodeName === "TIME" && known.dateTime && Object.keys(known.dataset).length) return; // shown in the reader's own
  children(known, wanted);
}

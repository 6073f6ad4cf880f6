// Moments in the reader's own time, and durations that run on.
//   <time datetime="…" data-clock>  the time of day      <time datetime="…" data-since>  how long ago, running
//   <time datetime="…" data-until>  how long until then   <time datetime="…" data-age>    "3 min ago", coarse

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const whole = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "medium" });

let ahead = 0; // milliseconds that the server's clock is ahead of ours

/** Learn the server's present moment, so that durations are right on a machine whose clock is not. */
export function serverTime(iso) {
  ahead = Date.parse(iso) - Date.now();
}

/** A duration as the server writes it: `12 s`, `3 min 05 s`, `2 h 07 min`, `3 d 4 h`. */
export function duration(milliseconds, fine = true) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return fine ? `${minutes} min ${String(seconds % 60).padStart(2, "0")} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return fine ? `${hours} h ${String(minutes % 60).padStart(2, "0")} min` : `${hours} h`;
  return fine ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${Math.floor(hours / 24)} d`;
}

/** What a moment is to its reader now. */
function shown(element) {
  const at = Date.parse(element.dateTime);
  const now = Date.now() + ahead;
  if ("clock" in element.dataset) return clock.format(at);
  if ("since" in element.dataset) return duration(now - at);
  if ("until" in element.dataset) return duration(at - now);
  if ("age" in element.dataset) return now - at < 5000 ? "just now" : `${duration(now - at, false)} ago`;
  return null;
}

/** Bring all moments below `root` up to date. */
export function tellTime(root = document) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const text = shown(element);
    if (text !== null && element.textContent !== text) element.textContent = text;
    if (!element.title) element.title = whole.format(Date.parse(element.dateTime));
  }
}

export function keepTime() {
  tellTime();
  setInterval(tellTime, 1000);
}

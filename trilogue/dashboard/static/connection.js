// The page's connection to the server: it comes back by itself, and says so while it is away.
import { serverTime, tellTime } from "./time.js";

const SILENCE = 60_000; // milliseconds without a sign of life after which the connection is taken for dead
const LONGEST_WAIT = 5_000;

/**
 * Listen at `address()` for ever. `hear(message)` gets each message but `hello`, `beat` and `error`.
 * A page whose styles and scripts are older than the server's is loaded anew.
 * @returns {{stop: function(): void}} to listen no longer
 */
export function listen(address, hear) {
  const assets = new URL(import.meta.url).pathname.split("/").at(-2);
  const shown = document.querySelector("[data-connection]");
  let wait = 250;
  let silence;
  let socket;
  let waiting;

  function open() {
    const url = new URL(address(), location.href);
    url.protocol = url.protocol.replace("http", "ws");
    socket = new WebSocket(url);
    const alive = () => {
      clearTimeout(silence);
      silence = setTimeout(() => socket.close(), SILENCE);
    };
    socket.onmessage = ({ data }) => {
      alive();
      const message = JSON.parse(data);
      if (message.type === "hello") {
        renew(message.assets);
        serverTime(message.at);
        tellTime();
      } else if (message.type !== "beat" && message.type !== "error") {
        wait = 250; // not before: a server that greets and then cannot tell anything is not asked at once again
        say("");
        hear(message);
      }
    };
    socket.onclose = () => {
      clearTimeout(silence);
      say("Reconnecting…");
      waiting = setTimeout(open, wait);
      wait = Math.min(2 * wait, LONGEST_WAIT);
    };
    alive();
  }

  /** Load the page of the server's version, once: servers of two versions behind one address must not toss it about. */
  function renew(theirs) {
    if (theirs === assets || sessionStorage.getItem("assets") === theirs) return;
    sessionStorage.setItem("assets", theirs);
    location.reload();
  }

  function say(text) {
    shown.textContent = text;
    document.documentElement.toggleAttribute("data-offline", text !== "");
  }

  open();
  return {
    stop() {
      clearTimeout(silence);
      clearTimeout(waiting);
      socket.onmessage = socket.onclose = null;
      socket.close();
      say("");
    },
  };
}

// The page's connection to the server: it comes back by itself, and says so while it is away.

const SILENCE = 60_000; // milliseconds without a sign of life after which the connection is taken for dead
const LONGEST_WAIT = 5_000;

/**
 * Listen at `address()` for ever. `hear(message)` gets each message but `hello` and `beat`.
 * A page whose styles and scripts are older than the server's is loaded anew.
 */
export function listen(address, hear) {
  const assets = new URL(import.meta.url).pathname.split("/").at(-2);
  const shown = document.querySelector("[data-connection]");
  let wait = 250;
  let silence;

  function open() {
    const url = new URL(address(), location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url);
    const alive = () => {
      clearTimeout(silence);
      silence = setTimeout(() => socket.close(), SILENCE);
    };
    socket.onmessage = ({ data }) => {
      alive();
      const message = JSON.parse(data);
      if (message.type === "hello") {
        if (message.assets !== assets) location.reload();
        wait = 250;
        say("");
      } else if (message.type !== "beat") {
        hear(message);
      }
    };
    socket.onclose = () => {
      clearTimeout(silence);
      say("Reconnecting…");
      setTimeout(open, wait);
      wait = Math.min(2 * wait, LONGEST_WAIT);
    };
    alive();
  }

  function say(text) {
    shown.textContent = text;
    document.documentElement.toggleAttribute("data-offline", text !== "");
  }

  open();
}

// What every page needs: the reader's own time, the theme, and the part that is this page's.
import { keepTime } from "./time.js";
import { followTheme } from "./theme.js";

keepTime();
followTheme();

const main = document.querySelector("main");
if (main.dataset.pipeline) {
  const { openPipeline } = await import("./pipeline.js");
  openPipeline(main);
} else if (main.dataset.home !== undefined) {
  const { openHome } = await import("./home.js");
  openHome(main);
}
document.documentElement.dataset.ready = ""; // from here on the page hears its reader

// Home: what can be asked for, and the list of what was.
import { openList } from "./list.js";
import { openSpawning } from "./spawning.js";

export function openHome(main) {
  openSpawning(main);
  openList(main);
}

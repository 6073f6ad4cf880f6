// Light or dark: as the system says, until the reader chooses; a cookie, so that the server draws it right at once.

const YEAR = 365 * 24 * 3600;

export function followTheme() {
  const root = document.documentElement;
  document.querySelector("[data-theme-switch]").addEventListener("click", () => {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    document.cookie = `theme=${root.dataset.theme}; path=/; max-age=${YEAR}; samesite=strict`;
  });
}

// Home: the list of pipelines, kept up to date.
export function openHome() {}

// The fleet in numbers, read again whenever something that it counts is heard of.
import { shared } from './ui.js';
import { Problem, request } from './api.js';
import { on } from './live.js';

const GATHER_MS = 200;

export const summary = shared(null);

let timer = 0;

async function read() {
  try {
    summary.set(await request('/api/v1/summary'));
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem; // the view that is shown says why
  }
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(read, GATHER_MS);
}

/** Follows the stream for as long as the page lives. */
export function followSummary() {
  for (const kind of ['fresh', 'alarm', 'online']) on(kind, soon);
}

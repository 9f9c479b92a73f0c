// Asking the API. Every failure is a Problem with a sentence in the reader's language.
import { t } from './i18n.js';
import { shared } from './ui.js';

/** Whether the console wants a log-in first. */
export const loginNeeded = shared(false);

export class Problem extends Error {
  constructor(status, code, detail, body = {}) {
    super(detail);
    this.status = status;
    this.code = code;
    this.body = body;
  }

  /** For people. */
  get why() {
    if (this.code === 'network') return t('problem.network');
    if (this.code === 'store-unavailable') return t('problem.store');
    return this.message;
  }
}

const DEADLINE_MS = 15000;

export async function request(path, { method = 'GET', body, headers = {}, signal } = {}) {
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? headers : { 'Content-Type': 'application/json', ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, 'network', String(error));
  }
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  if (answer.status === 401 && content.code === 'log-in-needed') loginNeeded.set(true);
  throw new Problem(answer.status, content.code ?? 'refused', content.detail ?? answer.statusText, content);
}

/** A path with a query; empty values are left out. */
export function withQuery(path, query) {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== '') parts.append(name, one);
    }
  }
  const text = parts.toString();
  return text ? `${path}?${text}` : path;
}

/** Up to `most` items of a paged list, and where to go on. */
export async function pages(path, query, { most = 300, signal, cursor = null } = {}) {
  const items = [];
  let next = cursor;
  do {
    const page = await request(withQuery(path, { ...query, cursor: next }), { signal });
    items.push(...page.items);
    next = page.next;
  } while (next && items.length < most);
  return { items, next };
}

/** A key that is new for every intention; works without a secure context too. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

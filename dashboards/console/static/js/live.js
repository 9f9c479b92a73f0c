// The one stream of the page: what it carries, whether it lives, and how it comes back.
// After every gap (first connection, reconnection, reset, database back) `fresh` tells the views to read again.
import { useEffect, useRef, useState, shared } from './ui.js';
import { Problem, loginNeeded, request, withQuery } from './api.js';
import { heardClock } from './format.js';

/** connecting · live · reconnecting · away (the database is) */
export const connection = shared('connecting');

const KINDS = ['alarm', 'latest', 'event', 'online'];
const SILENT_MS = 16000;
const RETRY_MS = [300, 700, 1500, 3000, 5000];

const handlers = new Map();
let source = null;
let scope = [];
let attempt = 0;
let watchdog = 0;
let retry = 0;
let store = 'ok';
let fresh = 0;

/** Calls `handler` with every message of a kind (or `fresh`) until the returned function is called. */
export function on(kind, handler) {
  if (!handlers.has(kind)) handlers.set(kind, new Set());
  handlers.get(kind).add(handler);
  return () => handlers.get(kind).delete(handler);
}

/** Says which units' readings and events the view wants; alarms and connections come of all. */
export function listenTo(equipments) {
  const wanted = [...new Set(equipments)].sort();
  if (source && wanted.join() === scope.join()) return;
  scope = wanted;
  open();
}

export function closeStream() {
  clearTimeout(watchdog);
  clearTimeout(retry);
  source?.close();
  source = null;
}

function emit(kind, content) {
  for (const handler of [...(handlers.get(kind) ?? [])]) handler(content);
}

function open() {
  closeStream();
  const kinds = scope.length ? KINDS : ['alarm', 'online'];
  const path = withQuery('/api/v1/stream', { kind: kinds, all_alarms: true, equipment: scope.length > 400 ? [] : scope });
  source = new EventSource(path);
  source.onerror = lost;
  listen('hello', (content) => {
    attempt = 0;
    store = content.store;
    show();
    if (store === 'ok') again();
  });
  listen('beat', (content) => heardStore(content.store));
  listen('store', (content) => heardStore(content.store));
  listen('reset', () => again());
  for (const kind of KINDS) listen(kind, (content) => emit(kind, content));
  watch();
}

function listen(kind, handle) {
  source.addEventListener(kind, (message) => {
    watch();
    const content = JSON.parse(message.data);
    if (content.at && kind !== 'alarm') heardClock(content.at);
    handle(content);
  });
}

function heardStore(state) {
  const back = store === 'away' && state === 'ok';
  store = state;
  show();
  if (back) again();
}

function show() {
  const state = store === 'ok' ? 'live' : 'away';
  if (connection.value !== state) connection.set(state);
}

function again() {
  fresh += 1;
  emit('fresh', fresh);
}

function watch() {
  clearTimeout(watchdog);
  watchdog = setTimeout(lost, SILENT_MS);
}

function lost() {
  closeStream();
  if (connection.value !== 'connecting') connection.set('reconnecting');
  const wait = RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)];
  attempt += 1;
  retry = setTimeout(reopen, wait * (0.8 + 0.4 * Math.random()));
}

/** A stream that is refused says nothing of why: ask before the next try whether a log-in is missing. */
async function reopen() {
  try {
    const session = await request('/api/v1/session');
    if (session.needed && !session.authorised) {
      loginNeeded.set(true);
      return;
    }
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    lost();
    return;
  }
  open();
}

addEventListener('online', () => { if (!source) { clearTimeout(retry); attempt = 0; reopen(); } });

/** Data that is read at once, when `key` changes and after every gap: {data, problem, patch, reload}. */
export function useReading(key, read) {
  const [state, setState] = useState({ key: null, data: null, problem: null });
  const running = useRef(null);
  const during = useRef([]); // changes that came while reading: the answer may be older than they are
  const reload = useRef(() => {});
  reload.current = () => {
    running.current?.abort();
    const abort = new AbortController();
    running.current = abort;
    during.current = [];
    read(abort.signal).then(
      (data) => {
        if (abort.signal.aborted) return;
        running.current = null;
        setState({ key, data: during.current.reduce((known, change) => change(known), data), problem: null });
      },
      (problem) => {
        if (abort.signal.aborted) return;
        running.current = null;
        if (!(problem instanceof Problem)) throw problem;
        setState((old) => ({ key, data: old.key === key ? old.data : null, problem }));
      },
    );
  };
  useEffect(() => {
    reload.current();
    return () => running.current?.abort();
  }, [key]);
  useEffect(() => on('fresh', () => reload.current()), []);
  const patch = (change) => {
    if (running.current) during.current.push(change);
    setState((old) => (old.data ? { ...old, data: change(old.data) } : old));
  };
  const current = state.key === key ? state : { data: null, problem: null };
  return { ...current, patch, reload: () => reload.current() };
}

/** Handles a kind of message while the view is shown. */
export function useMessages(kind, handle) {
  const current = useRef(handle);
  current.current = handle;
  useEffect(() => on(kind, (content) => current.current(content)), [kind]);
}

// The page: its frame, which view is shown, and what everybody must always see (the connection, the number of alarms).
import { html, render, useEffect, useRef, useShared, useState } from './ui.js';
import { Problem, loginNeeded, request } from './api.js';
import { lang, loadTexts, pick, switchLang, t } from './i18n.js';
import { closeStream, connection, listenTo, on } from './live.js';
import { followSummary, summary } from './summary.js';
import { AcknowledgeDialog, acknowledging, toast } from './alarm.js';
import { AlarmsView } from './alarms.js';
import { FleetView } from './fleet.js';
import { UnitView } from './unit.js';

const TOAST_MS = 6000;

/** The place in the address: #/path?query. */
function place() {
  const [path, query = ''] = location.hash.replace(/^#/, '').split('?');
  return { path: path || '/', query: Object.fromEntries(new URLSearchParams(query)) };
}

function go(path, query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value);
  const text = new URLSearchParams(kept).toString();
  location.hash = text ? `${path}?${text}` : path;
}

function usePlace() {
  const [here, setHere] = useState(place());
  useEffect(() => {
    const moved = () => setHere(place());
    addEventListener('hashchange', moved);
    return () => removeEventListener('hashchange', moved);
  }, []);
  return here;
}

function View({ here }) {
  const unit = /^\/unit\/([a-z0-9_.-]+)$/.exec(here.path);
  if (unit) return html`<${UnitView} key=${unit[1]} id=${unit[1]} />`;
  if (here.path === '/alarms') return html`<${AlarmsView} query=${here.query} go=${go} />`;
  return html`<${FleetView} query=${here.query} go=${go} />`;
}

function LiveSign() {
  const state = useShared(connection);
  return html`<span class="live l-${state}" role="status" aria-label=${t('live.label')}><span class="dot" aria-hidden="true"></span>${t(`live.${state}`)}</span>`;
}

function Away() {
  const state = useShared(connection);
  if (state !== 'reconnecting' && state !== 'away') return null;
  return html`<div class="notice ${state === 'away' ? 'alarm-notice' : 'warn'}" role="alert"><p>${t(state === 'away' ? 'away.store' : 'away.reconnecting')}</p></div>`;
}

function Header({ here, guarded }) {
  const fresh = useShared(summary)?.unacknowledged ?? 0;
  const alarms = here.path === '/alarms';
  useEffect(() => { document.title = `${fresh ? `(${fresh}) ` : ''}${t('app.title')}`; }, [fresh, lang.value]);
  const leave = async () => {
    await request('/api/v1/session', { method: 'DELETE' });
    closeStream();
    loginNeeded.set(true);
  };
  return html`<header class="top"><a class="brand" href="#/"><img src="/static/icon.svg" alt="" width="28" height="28" /><span>Vigil</span></a>
    <nav aria-label=${t('nav.main')}><a href="#/" aria-current=${alarms ? undefined : 'page'}>${t('nav.fleet')}</a>
      <a href="#/alarms" aria-current=${alarms ? 'page' : undefined}>${t('nav.alarms')}${fresh ? html`<span class="count" aria-label=${`${t('sum.unacknowledged')} ${fresh}`}>${fresh}</span>` : null}</a></nav>
    <${LiveSign} /><button type="button" class="button quiet" aria-label=${t('lang.label')} onClick=${switchLang}>${t('lang.switch')}</button>
    ${guarded ? html`<button type="button" class="button quiet" onClick=${leave}>${t('logout')}</button>` : null}</header>`;
}

function Login({ onIn }) {
  const [problem, setProblem] = useState('');
  const [token, setToken] = useState('');
  const submit = async (event) => {
    event.preventDefault();
    try {
      await request('/api/v1/session', { method: 'POST', body: { token } });
      onIn();
    } catch (why) {
      if (!(why instanceof Problem)) throw why;
      setProblem(why.status === 401 ? t('login.wrong') : why.status === 429 ? t('login.blocked') : why.why);
    }
  };
  return html`<main class="login"><form class="card" onSubmit=${submit}><h1>Vigil · ${t('login.title')}</h1><p>${t('login.why')}</p>
    <label>${t('login.token')}<input class="field" type="password" name="token" autocomplete="current-password" required value=${token} onInput=${(event) => setToken(event.target.value)} /></label>
    <p class="problem" role="alert">${problem}</p><button type="submit" class="button primary wide">${t('login.submit')}</button>
    <button type="button" class="button quiet" onClick=${switchLang}>${t('lang.switch')}</button></form></main>`;
}

function Toast() {
  const text = useShared(toast);
  useEffect(() => {
    if (!text) return undefined;
    const timer = setTimeout(() => toast.set(null), TOAST_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<div class="toast ${text ? 'shown' : ''}" role="status" aria-live="polite">${text ?? ''}</div>`;
}

/** Says new alarms to those who listen instead of looking. */
function Announcer() {
  const [text, setText] = useState('');
  useEffect(() => on('alarm', (alarm) => {
    if (alarm.transition === 'raise') setText(t('alarms.new', { equipment: pick(alarm.equipment_name) || alarm.equipment, text: pick(alarm.text) }));
  }), []);
  return html`<div class="visually-hidden" aria-live="assertive">${text}</div>`;
}

function App({ guarded }) {
  useShared(lang);
  const here = usePlace();
  const asked = useShared(acknowledging);
  const out = useShared(loginNeeded);
  const main = useRef(null);
  useEffect(() => { scrollTo(0, 0); }, [here.path]);
  if (out) return html`<${Login} onIn=${() => location.reload()} />`;
  return html`<button type="button" class="skip" onClick=${() => main.current.focus()}>${t('nav.skip')}</button>
    <${Header} here=${here} guarded=${guarded} /><main ref=${main} tabindex="-1"><${Away} /><${View} here=${here} /></main>
    ${asked ? html`<${AcknowledgeDialog} key=${asked.alarm.id} alarm=${asked.alarm} onChange=${asked.onChange} />` : null}
    <${Toast} /><${Announcer} />`;
}

async function begin() {
  await loadTexts();
  const session = await request('/api/v1/session');
  loginNeeded.set(session.needed && !session.authorised);
  followSummary();
  const root = document.getElementById('app');
  root.textContent = '';
  render(html`<${App} guarded=${session.needed} />`, root);
  if (!loginNeeded.value) listenTo([]);
}

/** The first load may come before the server: try again until it answers. */
async function beginUntilItAnswers() {
  try {
    await begin();
  } catch (error) {
    console.warn('not ready yet', error);
    setTimeout(beginUntilItAnswers, 1500);
  }
}

beginUntilItAnswers();

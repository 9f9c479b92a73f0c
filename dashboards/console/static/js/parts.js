// Small pieces that several views show alike.
import { html, useShared, useState } from './ui.js';
import { connection } from './live.js';
import { pick, t } from './i18n.js';
import { ago, alarmState, fullTime, priority, quality, reading, useTicking, when } from './format.js';

/** A time with its age; the full time on hover. */
export function Moment({ at, prefix = '' }) {
  useTicking();
  if (!at) return null;
  return html`<time class="moment" datetime=${at} title=${fullTime(at)}>${prefix}${when(at)}<span class="age"> · ${ago(at)}</span></time>`;
}

export const Badge = ({ kind, word }) => html`<span class="badge ${kind}">${word}</span>`;

export const PriorityBadge = ({ alarm }) => html`<${Badge}
  kind=${alarm.active ? `p-${alarm.priority}` : 'p-over'} word=${priority(alarm.priority)} />`;

export const StateBadge = ({ state }) => html`<${Badge} kind="s-${state}" word=${alarmState(state)} />`;

/** Whether a unit is heard, in a word, and since when it is not. */
export function ConnectionBadge({ unit, long }) {
  const word = t(`connection.${unit.connection}`);
  const ill = unit.connection === 'offline' || unit.connection === 'silent';
  return html`<span class="connection c-${unit.connection}"><span class="dot" aria-hidden="true"></span>${word}
    ${long && ill ? html`<span class="why"> · ${t(`connection.${unit.connection}.why`)}</span>` : null}
    ${ill && unit.since ? html` · <${Moment} at=${unit.since} />` : null}</span>`;
}

/** An organisation to call. */
export function Party({ role, party }) {
  const name = party ? pick(party.name) : '';
  return html`<div class="party"><span class="label">${t(`unit.${role}`)}</span>
    ${party
      ? html`<span class="name">${name}</span>
        ${party.phone
          ? html`<a class="tel" href="tel:${party.phone.replace(/[^\d+]/g, '')}" aria-label=${t('unit.call', { name, phone: party.phone })}>${party.phone}</a>`
          : html`<span class="muted">${t('unit.nophone')}</span>`}`
      : html`<span class="muted">${t('unit.noparty')}</span>`}</div>`;
}

/** A reading: its number with the unit, its enum text, or a word for what is wrong with it. */
export function Reading({ point }) {
  const said = reading(point);
  const doubt = !said.bad && point.quality && point.quality !== 'good';
  return html`<span class="reading ${said.bad ? 'bad' : ''}"><span class="figure">${said.text}</span>${said.unit
    ? html`<span class="unit"> ${said.unit}</span>` : null}${doubt ? html` <span class="doubt">${quality(point.quality)}</span>` : null}</span>`;
}

/** Nothing to show, and why. */
export const Empty = ({ title, why, children }) => html`<div class="empty" role="status">
  <p class="empty-title">${title}</p><p>${why}</p>${children}</div>`;

/** A read that failed, with the way to try again; while the page says that all is away, that says it, and tries. */
export function Failed({ problem, retry }) {
  const state = useShared(connection);
  if (state === 'reconnecting' || state === 'away') return null;
  return html`<div class="notice warn" role="alert"><p>${t('problem.read', { why: problem.why })}</p>
    <button type="button" class="button" onClick=${retry}>${t('problem.retry')}</button></div>`;
}

export const Loading = () => html`<p class="loading" role="status">${t('loading')}</p>`;

/** Two or three choices next to each other. */
export function Choice({ label, options, value, onChange }) {
  return html`<div class="choice" role="group" aria-label=${label}>
    ${options.map(([key, text]) => html`<button type="button" key=${key} aria-pressed=${String(key === value)}
      onClick=${() => onChange(key)}>${text}</button>`)}</div>`;
}

/** A text field that tells what was typed after a short rest. */
export function Search({ label, value, onChange }) {
  const [typed, setTyped] = useState(value);
  const [timer, setTimer] = useState(0);
  const type = (text) => {
    setTyped(text);
    clearTimeout(timer);
    setTimer(setTimeout(() => onChange(text.trim()), 250));
  };
  return html`<input type="search" class="field" aria-label=${label} placeholder=${label} value=${typed}
    onInput=${(event) => type(event.target.value)} />`;
}

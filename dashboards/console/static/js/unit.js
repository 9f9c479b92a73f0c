// One unit: what it says now, where it is and whom to call, how it got there, what it reported.
import { html, useEffect, useState } from './ui.js';
import { request } from './api.js';
import { known, pick, t } from './i18n.js';
import { listenTo, useMessages, useReading } from './live.js';
import { byPoint, withReadings } from './fleet.js';
import { number } from './format.js';
import { AlarmCard, newer } from './alarm.js';
import { ConnectionBadge, Empty, Failed, Loading, Moment, Party, Reading } from './parts.js';
import { Trends } from './trends.js';

const EVENTS_SHOWN = 100;
const SIGNS = { above: '>', below: '<', equals: '=', not_equals: '≠' };

const byNewest = (a, b) => (a.raised_at < b.raised_at ? 1 : -1);
const without = (items, id) => items.filter((item) => item.id !== id);

/** The unit with a transition of one of its alarms. */
function withAlarm(detail, heard) {
  const alarm = newer([...detail.alarms, ...detail.recent_alarms].find((item) => item.id === heard.id), heard);
  const others = without(detail.alarms, alarm.id);
  return {
    ...detail,
    alarms: alarm.active ? [...others, alarm].sort(byNewest) : others,
    recent_alarms: [...without(detail.recent_alarms, alarm.id), alarm].sort(byNewest),
  };
}

/** The unit with an event; the text of a text point comes as one. */
function withEvent(detail, heard) {
  if (heard.scheme === 'text') {
    const text = { zh: heard.attributes.value, en: heard.attributes.value };
    const points = detail.points.map((point) => (point.point === heard.code ? { ...point, text, time: heard.time } : point));
    return { ...detail, points };
  }
  return { ...detail, events: [heard, ...without(detail.events, heard.id)].slice(0, EVENTS_SHOWN) };
}

export function UnitView({ id }) {
  const reading = useReading(id, (signal) => request(`/api/v1/equipment/${encodeURIComponent(id)}`, { signal }));
  useEffect(() => listenTo([id]), [id]);
  useMessages('latest', ({ items }) => {
    const fresh = byPoint(items);
    reading.patch((detail) => ({ ...detail, points: withReadings(detail.points, fresh) }));
  });
  useMessages('alarm', (alarm) => { if (alarm.equipment === id) reading.patch((detail) => withAlarm(detail, alarm)); });
  useMessages('event', (event) => { if (event.equipment === id) reading.patch((detail) => withEvent(detail, event)); });
  useMessages('online', (heard) => {
    if (heard.equipment !== id) return;
    reading.patch((detail) => ({ ...detail, equipment: { ...detail.equipment, connection: heard.connection, since: heard.since } }));
  });
  const { data, problem } = reading;
  if (problem?.code === 'unknown-equipment') {
    return html`<${Empty} title=${t('unit.unknown')} why=${t('unit.unknown.why', { id })}><a class="button" href="#/">${t('unit.back')}</a><//>`;
  }
  return html`<section class="unit-page" aria-labelledby="unit-title">
    <a class="back" href="#/"><span aria-hidden="true">‹ </span>${t('unit.back')}</a>
    ${problem ? html`<${Failed} problem=${problem} retry=${reading.reload} />` : null}
    ${!data && !problem ? html`<${Loading} />` : null}
    ${data ? html`<${Unit} detail=${data} onAlarm=${(alarm) => reading.patch((detail) => withAlarm(detail, alarm))} />` : null}
  </section>`;
}

function Unit({ detail, onAlarm }) {
  const { equipment: unit, points, alarms, recent_alarms: recent, events } = detail;
  const over = recent.filter((alarm) => !alarm.active);
  return html`<div class="heading"><div><h1 id="unit-title">${pick(unit.name)}</h1>
      <p class="sub">${unit.id} · ${pick(unit.class_name)}${unit.area_name ? ` · ${pick(unit.area_name)}` : ''}</p></div>
      <${ConnectionBadge} unit=${unit} long=${true} /></div>
    ${alarms.length ? html`<section aria-labelledby="unit-alarms"><h2 id="unit-alarms">${t('unit.alarms')}</h2>
      <div class="alarms">${alarms.map((alarm) => html`<${AlarmCard} key=${alarm.id} alarm=${alarm} withUnit=${false} onChange=${onAlarm} />`)}</div></section>` : null}
    <${Contacts} unit=${unit} />
    <${Points} points=${points} />
    <${Trends} id=${unit.id} points=${points} alarms=${recent} />
    <div class="columns">
      <section aria-labelledby="unit-events"><h2 id="unit-events">${t('unit.events')}</h2><${Events} events=${events} /></section>
      <section aria-labelledby="unit-recent"><h2 id="unit-recent">${t('unit.recent')}</h2>
        ${over.length ? html`<div class="alarms">${over.map((alarm) => html`<${AlarmCard} key=${alarm.id} alarm=${alarm} withUnit=${false} onChange=${onAlarm} />`)}</div>`
          : html`<${Empty} title=${t('alarms.none')} why=${t('alarms.none.why')} />`}</section>
    </div>`;
}

function Contacts({ unit }) {
  const record = [
    ['unit.status', unit.status && known(`status.${unit.status}`, unit.status)],
    ['unit.registration', unit.registration_code],
    ['unit.model', unit.model],
    ['unit.profile', unit.profile],
    ['unit.edge', unit.edge],
  ].filter(([, text]) => text);
  return html`<section aria-labelledby="unit-who"><h2 id="unit-who">${t('unit.who')}</h2>
    <div class="card contacts">
      <div class="party"><span class="label">${t('unit.address')}</span><span class="name">${unit.address || t('unit.noaddress')}</span></div>
      <${Party} role="maintainer" party=${unit.maintainer} /><${Party} role="owner" party=${unit.owner} />
      ${unit.user && unit.user.id !== unit.owner?.id ? html`<${Party} role="user" party=${unit.user} />` : null}
      <dl class="record">${record.map(([key, text]) => html`<div key=${key}><dt>${t(key)}</dt><dd>${text}</dd></div>`)}</dl>
    </div></section>`;
}

function Points({ points }) {
  if (!points.length) return html`<${Empty} title=${t('point.empty')} why=${t('point.empty.why')} />`;
  return html`<section aria-labelledby="unit-points"><h2 id="unit-points">${t('unit.points')}</h2>
    <ul class="card points">${points.map((point) => html`<li key=${point.point} data-point=${point.point}>
      <span class="point-name">${pick(point.name)}</span>
      <span class="point-value"><${Reading} point=${point} /></span>
      <span class="point-more muted">${point.limits.map((limit) => `${SIGNS[limit.condition] ?? ''} ${limitText(point, limit)}`).join(' · ')}</span>
      <span class="point-time muted">${point.time ? html`<${Moment} at=${point.time} />` : null}</span></li>`)}</ul></section>`;
}

function limitText(point, limit) {
  const word = point.enum[String(limit.limit)];
  return word ? pick(word) : `${number(limit.limit)}${point.unit ? ` ${point.unit}` : ''}`;
}

function Events({ events }) {
  const [all, setAll] = useState(false);
  if (!events.length) return html`<${Empty} title=${t('event.empty')} why=${t('event.empty.why')} />`;
  const shown = all ? events : events.slice(0, 10);
  return html`<ul class="card events">${shown.map((event) => html`<li key=${event.id}>
      <span class="event-name">${event.name ? pick(event.name) : known(`vigil.${event.code}`, event.code)}</span>
      <span class="event-state e-${event.state}">${t(`event.${event.state}`)}</span>
      <span class="muted">${event.scheme} ${event.code}</span><${Moment} at=${event.time} /></li>`)}</ul>
    ${shown.length < events.length ? html`<button type="button" class="button wide" onClick=${() => setAll(true)}>${t('fleet.more')}</button>` : null}`;
}

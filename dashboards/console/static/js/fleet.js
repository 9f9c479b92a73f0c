// The fleet: what is wrong now, where, since when, and whom to call; area by area, worst first.
import { html, useEffect, useMemo, useRef, useState, useShared } from './ui.js';
import { Problem, pages, request } from './api.js';
import { lang, pick, t } from './i18n.js';
import { listenTo, useMessages, useReading } from './live.js';
import { summary } from './summary.js';
import { priority } from './format.js';
import { ConnectionBadge, Empty, Failed, Loading, Moment, PriorityBadge, Reading, Search } from './parts.js';

const PAGE = 200;
const RANK = { critical: 0, high: 1, medium: 2, low: 3 };
const GATHER_MS = 150;
const RELOAD_ALL = 20;

const isIll = (unit) => unit.connection === 'offline' || unit.connection === 'silent';
const needsSomebody = (unit) => unit.alarms.active > 0 || isIll(unit);

/** Most urgent first: unacknowledged before acknowledged, then by priority; then what is not heard; then by id. */
function urgency(unit) {
  const { worst, unacknowledged } = unit.alarms;
  if (worst) return RANK[worst.priority] + (unacknowledged ? 0 : 0.5);
  return isIll(unit) ? 8 : 9;
}
const byUrgency = (a, b) => urgency(a) - urgency(b) || (a.id < b.id ? -1 : 1);

/** The page with newer readings put in. */
export function withReadings(points, fresh) {
  let changed = false;
  const next = points.map((point) => {
    const heard = fresh.get(`${point.equipment}/${point.point}`);
    if (!heard || (point.time && heard.time < point.time)) return point;
    changed = true;
    return { ...point, time: heard.time, value: heard.value, quality: heard.quality, text: heard.text };
  });
  return changed ? next : points;
}

export const byPoint = (items) => new Map(items.map((item) => [`${item.equipment}/${item.point}`, item]));

function Tile({ unit }) {
  const worst = unit.alarms.worst;
  const more = unit.alarms.active - 1;
  const mood = worst ? `loud a-${worst.priority}` : isIll(unit) ? 'loud a-ill' : '';
  const calls = needsSomebody(unit) ? unit.maintainer : null;
  return html`<article class="tile ${mood}" data-unit=${unit.id}>
    <header><h3><a href="#/unit/${unit.id}" aria-label=${t('fleet.open', { name: pick(unit.name) })}>${pick(unit.name)}</a></h3>
      <${ConnectionBadge} unit=${unit} /></header>
    <p class="sub"><span>${unit.id}</span> · <span>${pick(unit.class_name)}</span>${needsSomebody(unit) ? html`<span class="place">${unit.address || t('unit.noaddress')}</span>` : null}</p>
    ${worst ? html`<p class="worst"><${PriorityBadge} alarm=${worst} /> <b>${pick(worst.text)}</b>
      ${more > 0 ? html`<span class="muted"> +${more}</span>` : null}<br /><${Moment} at=${worst.raised_at} />
      <span class="muted"> · ${t(`state.${worst.state}`)}</span></p>` : null}
    <dl class="keys">${unit.key_points.map((point) => html`<div key=${point.point}><dt>${pick(point.name)}</dt><dd><${Reading} point=${point} /></dd></div>`)}</dl>
    ${calls?.phone ? html`<p class="call"><span class="label">${t('unit.maintainer')}</span> ${pick(calls.name)}
      <a class="tel" href="tel:${calls.phone.replace(/[^\d+]/g, '')}">${calls.phone}</a></p>` : null}
  </article>`;
}

function Numbers() {
  const sum = useShared(summary);
  if (!sum) return null;
  const active = Object.values(sum.alarms).reduce((a, b) => a + b, 0);
  const away = sum.equipment - sum.connections.online;
  const words = Object.entries(sum.alarms).filter(([, n]) => n).map(([word, n]) => `${priority(word)} ${n}`).join(' · ');
  return html`<dl class="numbers">
    <div><dt>${t('sum.equipment')}</dt><dd>${sum.equipment}</dd></div>
    <div><dt>${t('sum.online')}</dt><dd>${sum.connections.online}</dd></div>
    <div class=${away ? 'ill' : ''}><dt>${t('sum.notonline')}</dt><dd>${away}</dd></div>
    <div class="wide ${active ? 'active' : ''}"><dt>${t('sum.alarms')}</dt><dd>${active}${words ? html` <span class="words">${words}</span>` : null}</dd></div>
    <div class=${sum.unacknowledged ? 'active' : ''}><dt>${t('sum.unacknowledged')}</dt><dd>${sum.unacknowledged}</dd></div>
  </dl>`;
}

function Filters({ query, set, places }) {
  const option = ({ id, name, equipment }) => html`<option key=${id} value=${id}>${pick(name)} (${equipment})</option>`;
  return html`<div class="filters" role="search">
    <${Search} label=${t('fleet.search')} value=${query.q ?? ''} onChange=${(q) => set({ q })} />
    <select class="field" aria-label=${t('fleet.area')} value=${query.area ?? ''} onChange=${(event) => set({ area: event.target.value })}>
      <option value="">${t('fleet.area.all')}</option>${places?.areas.map(option)}</select>
    <select class="field" aria-label=${t('fleet.class')} value=${query.class ?? ''} onChange=${(event) => set({ class: event.target.value })}>
      <option value="">${t('fleet.class.all')}</option>${places?.classes.map(option)}</select>
    <label class="check"><input type="checkbox" checked=${query.attention === '1'} onChange=${(event) => set({ attention: event.target.checked ? '1' : '' })} />
      ${t('fleet.attention')}</label></div>`;
}

/** Reads the units that alarms were heard of again, many at once. */
function useGathered(readAgain) {
  const wanted = useRef(new Set());
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  return (equipment) => {
    wanted.current.add(equipment);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => {
      const ids = [...wanted.current];
      wanted.current.clear();
      readAgain(ids);
    }, GATHER_MS);
  };
}

export function FleetView({ query, go }) {
  useShared(lang);
  const asked = { area: query.area, class: query.class, q: query.q };
  const key = JSON.stringify(asked);
  const reading = useReading(key, (signal) => pages('/api/v1/equipment', { ...asked, limit: PAGE }, { most: PAGE, signal }));
  const places = useReading('places', async (signal) => {
    const [areas, classes] = await Promise.all([request('/api/v1/areas', { signal }), request('/api/v1/classes', { signal })]);
    return { areas: areas.items, classes: classes.items };
  });
  const [more, setMore] = useState(false);
  const { data, problem } = reading;
  const ids = data?.items.map((unit) => unit.id).join(' ');
  useEffect(() => { if (ids !== undefined) listenTo(ids ? ids.split(' ') : []); }, [ids]);

  const patchUnits = (change) => reading.patch((page) => ({ ...page, items: page.items.map(change) }));
  useMessages('latest', ({ items }) => {
    const fresh = byPoint(items);
    patchUnits((unit) => {
      const points = withReadings(unit.key_points, fresh);
      return points === unit.key_points ? unit : { ...unit, key_points: points };
    });
  });
  useMessages('online', (heard) => patchUnits((unit) => (unit.id === heard.equipment ? { ...unit, connection: heard.connection, since: heard.since } : unit)));
  const again = useGathered(async (units) => {
    if (units.length > RELOAD_ALL) return reading.reload();
    const read = await Promise.all(units.map((id) => request(`/api/v1/equipment/${id}`).catch((why) => { if (!(why instanceof Problem)) throw why; })));
    const found = new Map(read.filter(Boolean).map((detail) => [detail.equipment.id, detail.equipment]));
    patchUnits((unit) => found.get(unit.id) ?? unit);
  });
  useMessages('alarm', (alarm) => { if (ids?.split(' ').includes(alarm.equipment)) again(alarm.equipment); });

  const set = (change) => go('/', { ...query, ...change });
  const loadMore = async () => {
    setMore(true);
    try {
      const page = await pages('/api/v1/equipment', { ...asked, limit: PAGE }, { most: PAGE, cursor: data.next });
      reading.patch((known) => ({ items: [...known.items, ...page.items], next: page.next }));
    } finally {
      setMore(false);
    }
  };
  const shown = useMemo(() => (data?.items ?? []).filter((unit) => query.attention !== '1' || needsSomebody(unit)), [data, query.attention]);
  return html`<section aria-labelledby="fleet-title">
    <h1 id="fleet-title" class="visually-hidden">${t('fleet.title')}</h1>
    <${Numbers} />
    <${Filters} query=${query} set=${set} places=${places.data} />
    ${problem ? html`<${Failed} problem=${problem} retry=${reading.reload} />` : null}
    ${!data && !problem ? html`<${Loading} />` : null}
    ${data && !shown.length ? html`<${Nothing} query=${query} any=${data.items.length > 0} go=${go} />` : null}
    <${Areas} units=${shown} />
    ${data?.next ? html`<button type="button" class="button wide" disabled=${more} onClick=${loadMore}>${t('fleet.more')}</button>` : null}
  </section>`;
}

function Areas({ units }) {
  const groups = new Map();
  for (const unit of units) {
    const area = unit.area ?? '';
    if (!groups.has(area)) groups.set(area, []);
    groups.get(area).push(unit);
  }
  const ordered = [...groups].map(([area, members]) => [area, members.sort(byUrgency)])
    .sort(([, a], [, b]) => byUrgency(a[0], b[0]));
  return ordered.map(([area, members]) => {
    const alarms = members.reduce((sum, unit) => sum + unit.alarms.active, 0);
    return html`<section key=${area} class="area" data-area=${area}>
      <h2>${area ? pick(members[0].area_name) : t('fleet.area.none')} <span class="muted">${t('fleet.count', { count: members.length })} · ${alarms ? t('fleet.alarmcount', { count: alarms }) : t('fleet.noalarm')}</span></h2>
      <div class="tiles">${members.map((unit) => html`<${Tile} key=${unit.id} unit=${unit} />`)}</div></section>`;
  });
}

function Nothing({ query, any, go }) {
  const filtered = query.area || query.class || query.q;
  const clear = html`<button type="button" class="button" onClick=${() => go('/', {})}>${t('fleet.clear')}</button>`;
  if (any) return html`<${Empty} title=${t('fleet.calm')} why=${t('fleet.calm.why')}>${clear}<//>`;
  if (filtered) return html`<${Empty} title=${t('fleet.nomatch')} why=${t('fleet.nomatch.why')}>${clear}<//>`;
  return html`<${Empty} title=${t('fleet.empty')} why=${t('fleet.empty.why')} />`;
}

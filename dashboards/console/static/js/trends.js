// The unit's trends: which points, over which period, and one chart each.
import { html, useEffect, useRef, useState } from './ui.js';
import { request, withQuery } from './api.js';
import { pick, t } from './i18n.js';
import { useMessages, useReading } from './live.js';
import { now, number, useTicking, when } from './format.js';
import { drawChart } from './chart.js';
import { Choice, Failed } from './parts.js';

const MINUTE = 60;
const RANGES = { '15m': 15 * MINUTE, '1h': 60 * MINUTE, '6h': 360 * MINUTE, '24h': 1440 * MINUTE, '7d': 10080 * MINUTE };
const FIRST = 3;
const POINTS_PER_PIXEL = 1.5;
const REREAD_MS = 60000;

const drawable = (point) => point.kind !== 'text';

/** What to draw first: points with an alarm, with limits, then measurements. */
function interesting(points, alarms) {
  const alarmed = new Set(alarms.filter((alarm) => alarm.active).map((alarm) => alarm.point));
  const rank = (point) => (alarmed.has(point.point) ? 0 : point.limits.length && point.kind === 'measurement' ? 1 : point.kind === 'measurement' ? 2 : 3);
  return points.filter(drawable).map((point, i) => [rank(point), i, point.point]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).slice(0, FIRST).map((x) => x[2]);
}

export function Trends({ id, points, alarms }) {
  const [chosen, setChosen] = useState(null);
  const [range, setRange] = useState('1h');
  const shown = chosen ?? interesting(points, alarms);
  const candidates = points.filter(drawable);
  if (!candidates.length) return null;
  const toggle = (name) => setChosen(shown.includes(name) ? shown.filter((other) => other !== name) : [...shown, name]);
  return html`<section aria-labelledby="unit-trends"><div class="heading"><h2 id="unit-trends">${t('unit.trends')}</h2>
      <${Choice} label=${t('trend.range')} value=${range} onChange=${setRange} options=${Object.keys(RANGES).map((key) => [key, t(`trend.${key}`)])} /></div>
    <div class="chips" role="group" aria-label=${t('trend.points')}>${candidates.map((point) => html`<button type="button" key=${point.point} class="chip"
      aria-pressed=${String(shown.includes(point.point))} onClick=${() => toggle(point.point)}>${pick(point.name)}</button>`)}</div>
    ${shown.length ? null : html`<p class="muted">${t('trend.choose')}</p>`}
    <div class="charts">${candidates.filter((point) => shown.includes(point.point)).map((point) => html`<${Trend} key=${`${point.point} ${range}`} id=${id} point=${point}
      seconds=${RANGES[range]} alarms=${alarms.filter((alarm) => alarm.point === point.point)} />`)}</div></section>`;
}

/** Readings as columns in seconds; a bad one is a gap. */
function columns(items) {
  return [items.map((item) => Date.parse(item.time) / 1000), items.map((item) => item.value)];
}

function Trend({ id, point, seconds, alarms }) {
  const box = useRef(null);
  const chart = useRef(null);
  const [cursor, setCursor] = useState(null);
  const reading = useReading(`${id}/${point.point}/${seconds}`, (signal) => {
    const query = { point: point.point, from: new Date(now() - seconds * 1000).toISOString(), max_points: Math.max(60, Math.round((box.current?.clientWidth || 600) * POINTS_PER_PIXEL)) };
    return request(withQuery(`/api/v1/equipment/${encodeURIComponent(id)}/samples`, query), { signal });
  });
  const { data, problem } = reading;
  useMessages('latest', ({ items }) => {
    const heard = items.find((item) => item.equipment === id && item.point === point.point);
    if (heard) reading.patch((page) => append(page, heard, seconds));
  });
  useEffect(() => {
    const timer = setInterval(() => reading.reload(), REREAD_MS * (seconds > 6 * 3600 ? 5 : 1));
    return () => clearInterval(timer);
  }, []);
  useEffect(() => {
    chart.current = drawChart(box.current, { onCursor: setCursor });
    return () => chart.current.destroy();
  }, []);
  const any = Boolean(data?.items.some((item) => item.value !== null));
  useEffect(() => {
    if (data) chart.current.show({ columns: columns(data.items), point, alarms, seconds, end: now() / 1000, bucketS: data.bucket_s });
  });
  useTicking(5000);
  const values = (data?.items ?? []).map((item) => item.value).filter((value) => value !== null);
  const label = any ? t('trend.label', { name: pick(point.name), min: number(Math.min(...values)), max: number(Math.max(...values)), unit: point.unit }) : pick(point.name);
  return html`<figure class="card trend" data-trend=${point.point}>
    <figcaption><b>${pick(point.name)}</b>${point.unit ? html`<span class="muted"> ${point.unit}</span>` : null}
      <span class="cursor" aria-hidden="true">${cursor ? `${when(new Date(cursor.time * 1000).toISOString())}  ${valueText(point, cursor.value)}` : ''}</span></figcaption>
    ${problem ? html`<${Failed} problem=${problem} retry=${reading.reload} />` : null}
    <div ref=${box} class="plot ${any ? '' : 'blank'}" role="img" aria-label=${label}></div>
    ${any || problem ? null : html`<p class="muted over">${data ? t('trend.empty') : t('trend.loading')}</p>`}
    ${data?.bucket_s ? html`<p class="muted small">${t('trend.thinned', { seconds: number(Math.round(data.bucket_s * 10) / 10) })}</p>` : null}
  </figure>`;
}

function valueText(point, value) {
  const word = point.enum[String(value)];
  return word ? pick(word) : `${number(value)} ${point.unit}`;
}

/** The page with a reading at its end, and without what has left the period. */
function append(page, heard, seconds) {
  const last = page.items.at(-1);
  if (!heard.time || (last && heard.time <= last.time)) return page;
  const oldest = new Date(now() - seconds * 1000).toISOString();
  const items = page.items.filter((item) => item.time >= oldest);
  return { ...page, items: [...items, { time: heard.time, value: heard.value, quality: heard.quality }] };
}


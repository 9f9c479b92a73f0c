// Alarms, newest first: the active ones, or all.
import { html, useEffect, useState } from './ui.js';
import { pages } from './api.js';
import { t } from './i18n.js';
import { listenTo, useMessages, useReading } from './live.js';
import { AlarmCard, newer } from './alarm.js';
import { Choice, Empty, Failed, Loading } from './parts.js';

const PAGE = 100;

const byNewest = (a, b) => (a.raised_at < b.raised_at ? 1 : a.raised_at > b.raised_at ? -1 : a.id < b.id ? 1 : -1);

/** The list with one alarm put in, changed, or taken out where it no longer belongs. */
function withAlarm(items, alarm, state) {
  const known = items.find((item) => item.id === alarm.id);
  const kept = newer(known, alarm);
  const others = items.filter((item) => item.id !== alarm.id);
  return state === 'active' && !kept.active ? others : [...others, kept].sort(byNewest);
}

export function AlarmsView({ query, go }) {
  const state = query.state === 'all' ? 'all' : 'active';
  const reading = useReading(state, (signal) => pages('/api/v1/alarms', { state, limit: PAGE }, { most: PAGE, signal }));
  const [more, setMore] = useState(false);
  useEffect(() => listenTo([]), []);
  const put = (alarm) => reading.patch((data) => ({ ...data, items: withAlarm(data.items, alarm, state) }));
  useMessages('alarm', put);
  const loadMore = async () => {
    setMore(true);
    try {
      const page = await pages('/api/v1/alarms', { state, limit: PAGE }, { most: PAGE, cursor: reading.data.next });
      reading.patch((data) => ({ items: page.items.reduce((items, alarm) => withAlarm(items, alarm, state), data.items), next: page.next }));
    } finally {
      setMore(false);
    }
  };
  const { data, problem } = reading;
  return html`<section aria-labelledby="alarms-title">
    <div class="heading"><h1 id="alarms-title">${t('alarms.title')}</h1>
      <${Choice} label=${t('alarms.which')} value=${state} onChange=${(key) => go('/alarms', { state: key === 'all' ? 'all' : '' })}
        options=${[['active', t('alarms.active')], ['all', t('alarms.all')]]} /></div>
    ${problem ? html`<${Failed} problem=${problem} retry=${reading.reload} />` : null}
    ${!data && !problem ? html`<${Loading} />` : null}
    ${data && !data.items.length ? html`<${Empty} title=${t(state === 'active' ? 'alarms.empty' : 'alarms.none')}
      why=${t(state === 'active' ? 'alarms.empty.why' : 'alarms.none.why')} />` : null}
    <div class="alarms">${data?.items.map((alarm) => html`<${AlarmCard} key=${alarm.id} alarm=${alarm} onChange=${put} />`)}</div>
    ${data?.next ? html`<button type="button" class="button wide" disabled=${more} onClick=${loadMore}>${t('fleet.more')}</button>` : null}
  </section>`;
}

// One alarm as a card, and the dialog that acknowledges it.
import { html, useLayoutEffect, useRef, useState, shared } from './ui.js';
import { newKey, request } from './api.js';
import { known, pick, t } from './i18n.js';
import { number, when } from './format.js';
import { Moment, Party, PriorityBadge, StateBadge } from './parts.js';

const NAME = 'vigil.name';

/** The alarm that is being acknowledged: {alarm, onDone}. */
export const acknowledging = shared(null);
/** A short message at the foot of the page. */
export const toast = shared(null);

export const canAcknowledge = (alarm) => alarm.state.endsWith('unacknowledged');

/** Keeps whichever of two versions of an alarm is newer. */
export const newer = (known, heard) => (known && known.revision > heard.revision ? known : heard);

const TELLING = ['value', 'limit', 'level', 'spread', 'z', 'threshold', 'edge', 'last_us', 'last_heartbeat_us', 'reason'];

/** What the alarm stands on, in a line; of a condition over several points its text says it all. */
function evidence(alarm) {
  if (alarm.evidence.values) return '';
  return TELLING.map((name) => [name, alarm.evidence[name]])
    .filter(([, value]) => ['number', 'string'].includes(typeof value))
    .map(([name, value]) => `${known(`evidence.${name}`, name.replaceAll('_', ' '))} ${evident(name, value)}`)
    .join(' · ');
}

function evident(name, value) {
  if (name.endsWith('_us')) return when(new Date(value / 1000).toISOString());
  if (typeof value === 'number') return number(value);
  return value;
}

export function AlarmCard({ alarm, withUnit = true, onChange }) {
  const unit = alarm.equipment_name ? pick(alarm.equipment_name) : alarm.equipment;
  const facts = evidence(alarm);
  return html`<article class="alarm ${alarm.active ? `a-${alarm.priority}` : 'a-over'}" data-alarm=${alarm.id} aria-label=${pick(alarm.text)}>
    <header><${PriorityBadge} alarm=${alarm} /><h3>${pick(alarm.text)}</h3>${alarm.late ? html`<span class="badge s-late">${t('alarms.late')}</span>` : null}</header>
    ${withUnit ? html`<p class="where"><a href="#/unit/${alarm.equipment}">${unit}</a><span class="muted"> ${alarm.equipment}</span>
      <span class="place">${[pick(alarm.area_name), alarm.address || t('unit.noaddress')].filter(Boolean).join(' · ')}</span></p>` : null}
    <dl class="times">
      <div><dt>${t('alarms.raised')}</dt><dd><${Moment} at=${alarm.raised_at} /></dd></div>
      ${alarm.cleared_at ? html`<div><dt>${t('alarms.cleared')}</dt><dd><${Moment} at=${alarm.cleared_at} /></dd></div>` : null}
      ${alarm.acknowledged_at ? html`<div><dt>${t('alarms.acknowledged')}</dt><dd><b>${alarm.acknowledged_by}</b> · <${Moment} at=${alarm.acknowledged_at} /></dd></div>` : null}
      ${alarm.acknowledge_note ? html`<div><dt>${t('alarms.note')}</dt><dd>${alarm.acknowledge_note}</dd></div>` : null}
      ${facts ? html`<div><dt>${t('alarms.evidence')}</dt><dd>${alarm.point_name ? `${pick(alarm.point_name)} · ` : ''}${facts}</dd></div>` : null}
    </dl>
    ${alarm.consequence ? html`<p class="advice"><span class="label">${t('alarms.consequence')}</span> ${pick(alarm.consequence)}</p>` : null}
    ${alarm.action ? html`<p class="advice"><span class="label">${t('alarms.action')}</span> ${pick(alarm.action)}</p>` : null}
    ${withUnit ? html`<div class="parties"><${Party} role="maintainer" party=${alarm.maintainer} /><${Party} role="owner" party=${alarm.owner} /></div>` : null}
    <footer><${StateBadge} state=${alarm.state} />
      ${canAcknowledge(alarm) ? html`<button type="button" class="button primary" aria-label=${t('alarms.acknowledge.of', { text: pick(alarm.text) })}
        onClick=${() => acknowledging.set({ alarm, onChange })}>${t('alarms.acknowledge')}</button>` : null}</footer>
  </article>`;
}

/** Asks for a name and a note, and says what became of it. */
export function AcknowledgeDialog({ alarm, onChange }) {
  const dialog = useRef(null);
  const nameField = useRef(null);
  const key = useRef(newKey());
  const [name, setName] = useState(localStorage.getItem(NAME) ?? '');
  const [note, setNote] = useState('');
  const [state, setState] = useState({ sending: false, problem: '' });
  const close = () => acknowledging.set(null);

  useLayoutEffect(() => { // not useEffect: a key pressed before it runs would not reach the dialog
    const before = document.activeElement;
    dialog.current.showModal();
    (name ? dialog.current.querySelector('textarea') : nameField.current).focus();
    return () => before?.focus?.();
  }, []);

  const retype = (set) => (event) => {
    key.current = newKey(); // another name or note is another intention
    set(event.target.value);
  };
  const submit = async (event) => {
    event.preventDefault();
    if (state.sending) return;
    if (!name.trim()) {
      setState({ sending: false, problem: t('ack.neededname') });
      nameField.current.focus();
      return;
    }
    setState({ sending: true, problem: '' });
    localStorage.setItem(NAME, name.trim());
    try {
      const path = `/api/v1/alarms/${encodeURIComponent(alarm.id)}/acknowledge`;
      const body = { by: name.trim(), note: note.trim() };
      const answer = await request(path, { method: 'POST', body, headers: { 'Idempotency-Key': key.current } });
      onChange?.(answer.alarm);
      toast.set(answer.outcome === 'done' ? t('ack.done', { text: pick(alarm.text) }) : t('ack.accepted'));
      close();
    } catch (problem) {
      if (problem.code === 'already-acknowledged') {
        onChange?.(problem.body.alarm);
        toast.set(t('ack.already', { by: problem.body.alarm.acknowledged_by ?? '' }));
        close();
      } else setState({ sending: false, problem: t('ack.failed', { why: problem.why ?? problem.message }) });
    }
  };

  return html`<dialog ref=${dialog} class="dialog" aria-labelledby="ack-title" onClose=${close}>
    <form onSubmit=${submit} novalidate>
      <h2 id="ack-title">${t('ack.title')}</h2>
      <p class="about"><${PriorityBadge} alarm=${alarm} /> <b>${pick(alarm.text)}</b><br />${pick(alarm.equipment_name)} <span class="muted">${alarm.equipment}</span></p>
      <label>${t('ack.name')}<input ref=${nameField} class="field" name="by" autocomplete="name" required maxlength="80" value=${name}
        aria-invalid=${String(Boolean(state.problem) && !name.trim())} onInput=${retype(setName)} /></label>
      <label>${t('ack.note')}<textarea class="field" name="note" rows="3" maxlength="1000" placeholder=${t('ack.note.hint')}
        value=${note} onInput=${retype(setNote)}></textarea></label>
      <p class="problem" role="alert">${state.problem}</p>
      <div class="buttons"><button type="button" class="button" onClick=${close}>${t('ack.cancel')}</button>
        <button type="submit" class="button primary" disabled=${state.sending}>${state.sending ? t('ack.sending') : t('ack.submit')}</button></div>
    </form></dialog>`;
}

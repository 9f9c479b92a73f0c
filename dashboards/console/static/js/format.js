// Numbers, times and readings as people read them.
import { useEffect, useState } from './ui.js';
import { known, lang, pick, t } from './i18n.js';

let serverAheadMs = 0;

/** What the server's clock says now: ages are by its clock, not by the phone's. */
export const now = () => Date.now() + serverAheadMs;
export const heardClock = (iso) => { serverAheadMs = Date.parse(iso) - Date.now(); };

/** Renders again every `everyMs`, so that ages stay true. */
export function useTicking(everyMs = 1000) {
  const [, setTick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => setTick((tick) => tick + 1), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
}

const locale = () => (lang.value === 'zh' ? 'zh-CN' : 'en-GB');
const TIME = { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false };
const DATE = { month: '2-digit', day: '2-digit' };

/** Local time: of today without the date, of another year with the year. */
export function when(iso) {
  const moment = new Date(iso);
  const today = new Date(now());
  if (moment.toDateString() === today.toDateString()) return moment.toLocaleTimeString(locale(), TIME);
  const year = moment.getFullYear() === today.getFullYear() ? {} : { year: 'numeric' };
  return moment.toLocaleString(locale(), { ...year, ...DATE, ...TIME });
}

export const fullTime = (iso) => new Date(iso).toLocaleString(locale(), { year: 'numeric', ...DATE, ...TIME, timeZoneName: 'short' });

/** How long ago, in one unit. */
export function ago(iso) {
  const seconds = Math.max(0, (now() - Date.parse(iso)) / 1000);
  if (seconds < 2) return t('ago.now');
  if (seconds < 120) return t('ago.s', { n: Math.floor(seconds) });
  if (seconds < 7200) return t('ago.m', { n: Math.floor(seconds / 60) });
  if (seconds < 172800) return t('ago.h', { n: Math.floor(seconds / 3600) });
  return t('ago.d', { n: Math.floor(seconds / 86400) });
}

/** A number with as many digits as tell something. */
export function number(value) {
  const size = Math.abs(value);
  const digits = Number.isInteger(value) ? 0 : size >= 1000 ? 1 : size >= 1 ? 2 : 4;
  return value.toLocaleString(locale(), { maximumFractionDigits: digits });
}

/** What a reading says: {text, unit, bad}. A bad one says why in words and has no number. */
export function reading(point) {
  if (point.quality === null && !point.text) return { text: t('quality.none'), unit: '', bad: true };
  if (point.text) return { text: pick(point.text), unit: '', bad: false };
  if (point.value === null) return { text: quality(point.quality), unit: '', bad: true };
  return { text: number(point.value), unit: point.unit, bad: false };
}

export const quality = (word) => known(`quality.${word}`, word);
export const priority = (word) => known(`priority.${word}`, word);
export const alarmState = (word) => known(`state.${word}`, word);

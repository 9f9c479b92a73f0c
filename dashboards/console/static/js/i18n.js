// Texts in the language chosen, which is remembered. One table for both languages, served by the console.
import { shared } from './ui.js';

const KEY = 'vigil.lang';
let tables = { zh: {}, en: {} };
export const lang = shared('zh');

export async function loadTexts() {
  const answer = await fetch('/api/v1/texts');
  if (!answer.ok) throw new Error(String(answer.status));
  const loaded = await answer.json();
  tables = loaded.texts;
  const remembered = localStorage.getItem(KEY);
  lang.set(remembered in tables ? remembered : loaded.lang);
  say();
}

export function switchLang() {
  const next = lang.value === 'zh' ? 'en' : 'zh';
  localStorage.setItem(KEY, next);
  lang.set(next);
  say();
}

function say() {
  document.documentElement.lang = lang.value;
}

/** The text of a key, with {names} filled in. */
export function t(key, values = {}) {
  const table = tables[lang.value];
  const text = (values.count === 1 ? table[`${key}.one`] : undefined) ?? table[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** The text of a key if there is one, else the fallback. */
export const known = (key, fallback) => tables[lang.value][key] ?? fallback;

/** A {zh, en} text in the language chosen. */
export const pick = (text) => (text ? text[lang.value] || text.en || text.zh : '');

// The view library in one place: preact, its hooks, and htm for templates without a build step.
import { h, render, Fragment } from '../vendor/preact.js';
import { useState, useEffect, useRef, useMemo, useCallback, useLayoutEffect } from '../vendor/preact-hooks.js';
import htm from '../vendor/htm.js';

export const html = htm.bind(h);
export { render, Fragment, useState, useEffect, useRef, useMemo, useCallback, useLayoutEffect };

/** A value that views share: read it with `useShared`, change it with `set`. */
export function shared(value) {
  const listeners = new Set();
  return {
    get value() { return value; },
    set(next) {
      value = next;
      for (const listener of [...listeners]) listener(next);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** The shared value; the view renders again when it changes. */
export function useShared(source) {
  const [value, setValue] = useState(source.value);
  useEffect(() => {
    setValue(source.value);
    return source.subscribe((next) => setValue(() => next));
  }, [source]);
  return value;
}

// One chart on uPlot: the line with its gaps, the limits as dashed lines with their words, alarms as bands.
import uPlot from '../vendor/uplot.js';
import { lang, pick } from './i18n.js';
import { number, priority } from './format.js';

const HEIGHT = 190;
const GAP_FACTOR = 6; // a silence so many times the usual spacing is a gap
const dark = matchMedia('(prefers-color-scheme: dark)');

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const locale = () => (lang.value === 'zh' ? 'zh-CN' : 'en-GB');

/** Axis labels in local time, 24 hours; the date where a day begins. */
function timeLabels(_, splits, __, ___, increment) {
  let day = '';
  return splits.map((seconds) => {
    const moment = new Date(seconds * 1000);
    const today = moment.toDateString();
    const text = increment >= 86400
      ? moment.toLocaleDateString(locale(), { month: '2-digit', day: '2-digit' })
      : moment.toLocaleTimeString(locale(), { hour: '2-digit', minute: '2-digit', ...(increment < 60 ? { second: '2-digit' } : {}), hour12: false });
    const dated = increment < 86400 && day && day !== today ? `${text}\n${moment.toLocaleDateString(locale(), { month: '2-digit', day: '2-digit' })}` : text;
    day = today;
    return dated;
  });
}

/** Breaks the line where nothing was read for long: readings are never joined over a silence. */
export function withGaps([times, values], bucketS) {
  if (times.length < 3) return [times, values];
  const spacings = times.slice(1).map((time, i) => time - times[i]).sort((a, b) => a - b);
  const usual = Math.max(spacings[Math.floor(spacings.length / 2)], bucketS ?? 0, 1);
  const outTimes = [];
  const outValues = [];
  times.forEach((time, i) => {
    if (i && time - times[i - 1] > usual * GAP_FACTOR) {
      outTimes.push(times[i - 1] + usual);
      outValues.push(null);
    }
    outTimes.push(time);
    outValues.push(values[i]);
  });
  return [outTimes, outValues];
}

/** The value axis: all readings, and the limits that are not so far off that they would flatten the line. */
function range(values, limits) {
  const found = values.filter((value) => value !== null);
  if (!found.length) return [0, 1];
  let low = Math.min(...found);
  let high = Math.max(...found);
  const reach = Math.max((high - low) * 4, Math.abs(high) * 0.35, 1e-9);
  for (const { limit } of limits) {
    if (limit > high && limit - high < reach) high = limit;
    if (limit < low && low - limit < reach) low = limit;
  }
  const margin = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - margin, high + margin];
}

export function drawChart(box, { onCursor }) {
  let plot = null;
  let shown = null;

  function bands(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const alarm of shown.alarms) {
      const from = u.valToPos(Date.parse(alarm.onset) / 1000, 'x', true);
      const to = u.valToPos(alarm.cleared_at ? Date.parse(alarm.cleared_at) / 1000 : shown.end, 'x', true);
      ctx.fillStyle = colour('--band');
      ctx.fillRect(from, bbox.top, Math.max(2, to - from), bbox.height);
    }
    ctx.restore();
  }

  function limitLines(u) {
    const { ctx, bbox } = u;
    const scale = devicePixelRatio;
    ctx.save();
    ctx.font = `${11 * scale}px system-ui, sans-serif`;
    for (const limit of shown.point.limits) {
      if (shown.point.enum[String(limit.limit)]) continue;
      const y = u.valToPos(limit.limit, 'y', true);
      if (y < bbox.top || y > bbox.top + bbox.height) continue;
      ctx.strokeStyle = colour(`--line-${limit.priority}`);
      ctx.lineWidth = 1.5 * scale;
      ctx.setLineDash([6 * scale, 4 * scale]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      ctx.fillStyle = colour('--text');
      ctx.textAlign = 'left';
      ctx.textBaseline = limit.condition === 'below' ? 'top' : 'bottom';
      ctx.fillText(`${priority(limit.priority)} ${number(limit.limit)}`, bbox.left + 6 * scale, y + (limit.condition === 'below' ? 3 : -3) * scale);
    }
    ctx.restore();
  }

  function valueLabels(_, splits) {
    return splits.map((value) => {
      const word = shown.point.enum[String(value)];
      if (word) return pick(word).slice(0, 8);
      return Object.keys(shown.point.enum).length ? '' : number(value);
    });
  }

  function build() {
    plot?.destroy();
    const steps = shown.point.kind !== 'measurement';
    const grid = { stroke: colour('--grid'), width: 1 };
    const axis = { stroke: colour('--muted'), grid, ticks: grid, font: '11px system-ui, sans-serif' };
    plot = new uPlot({
      width: Math.max(200, box.clientWidth),
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false } },
      scales: {
        x: { time: true, range: () => [shown.end - shown.seconds, shown.end] },
        y: { range: (u) => range(u.data[1], shown.point.limits) },
      },
      axes: [
        { ...axis, values: timeLabels, space: 70 },
        { ...axis, values: valueLabels, size: Object.keys(shown.point.enum).length ? 78 : 54 },
      ],
      series: [
        {},
        {
          stroke: colour('--series'),
          width: 1.6,
          fill: steps ? undefined : colour('--series-fill'),
          paths: steps ? uPlot.paths.stepped({ align: 1 }) : undefined,
          points: { show: false },
          spanGaps: false,
        },
      ],
      hooks: {
        drawClear: [bands],
        draw: [limitLines],
        setCursor: [(u) => {
          const i = u.cursor.idx;
          const value = i === null || i === undefined ? null : u.data[1][i];
          onCursor(value === null || value === undefined ? null : { time: u.data[0][i], value });
        }],
      },
    }, data(), box);
  }

  const data = () => (shown.point.kind === 'measurement' || shown.point.kind === 'counter' ? withGaps(shown.columns, shown.bucketS) : shown.columns);
  const size = new ResizeObserver(() => { if (plot && box.clientWidth) plot.setSize({ width: box.clientWidth, height: HEIGHT }); });
  size.observe(box);
  const redress = () => { if (shown) build(); };
  dark.addEventListener('change', redress);
  const unsubscribe = lang.subscribe(redress);

  return {
    show(next) {
      shown = next;
      if (plot) plot.setData(data());
      else build();
    },
    destroy() {
      size.disconnect();
      dark.removeEventListener('change', redress);
      unsubscribe();
      plot?.destroy();
    },
  };
}

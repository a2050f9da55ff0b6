/** Numbers and times as people read them. Pure: no DOM, no requests. */
import type { TranslationBundle } from '@jupyterlab/translation';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `1.5 GiB`: three significant digits at most. */
export function bytes(count: number): string {
  let power = 0;
  let value = count;
  while (value >= 1024 && power < UNITS.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${trimmed(value)} ${UNITS[power]}`;
}

/** `1.5 / 16 GiB`: both in the unit of the second. */
export function bytesOf(used: number, total: number): string {
  let power = 0;
  while (total / 1024 ** power >= 1024 && power < UNITS.length - 1) {
    power += 1;
  }
  const unit = 1024 ** power;
  return `${trimmed(used / unit)} / ${trimmed(total / unit)} ${UNITS[power]}`;
}

function trimmed(value: number): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return String(Number(value.toFixed(digits)));
}

/** `3 min`, `2 h 5 min`, `4 d 1 h`: two parts at most, nothing finer than a minute above one. */
export function duration(trans: TranslationBundle, seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) {
    return trans.__('%1 s', whole);
  }
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) {
    return trans.__('%1 min', minutes);
  }
  const hours = Math.floor(minutes / 60);
  if (hours < 24) {
    return trans.__('%1 h %2 min', hours, minutes % 60);
  }
  return trans.__('%1 d %2 h', Math.floor(hours / 24), hours % 24);
}

/** `3 min ago`, of an RFC 3339 time; clocks that differ by a little are no reason for "-2 s". */
export function ago(trans: TranslationBundle, time: string | null, now: number): string {
  const then = time === null ? NaN : Date.parse(time);
  if (Number.isNaN(then)) {
    return trans.__('never');
  }
  const seconds = (now - then) / 1000;
  return seconds < 10 ? trans.__('just now') : trans.__('%1 ago', duration(trans, seconds));
}

/** Money as the ledger wrote it: the amount is a decimal string and is never put through a float. */
export function money(amount: string, currency: string | null): string {
  return currency ? `${amount} ${currency}` : amount;
}

/** GPU-seconds as hours, `1.5`. */
export function gpuHours(seconds: number): string {
  return (seconds / 3600).toFixed(seconds >= 36_000 ? 1 : 2);
}

/** The calendar month of now, in UTC as the ledger counts, moved by some months: `2026-11`. */
export function month(now: Date, moved = 0): string {
  const first = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + moved, 1));
  return first.toISOString().slice(0, 7);
}

/** Every day of a month: `2026-02-01` … `2026-02-28`. */
export function daysOf(name: string): string[] {
  const [year = 0, number = 1] = name.split('-').map(Number);
  const count = new Date(Date.UTC(year, number, 0)).getUTCDate();
  return Array.from({ length: count }, (_, day) => `${name}-${String(day + 1).padStart(2, '0')}`);
}

/**
 * Words. English is part of the program; another language is a catalogue that is laid over it, so that what it lacks shows
 * in English. Catalogues are flat: a key, and a text in which {name} stands for a value.
 */
import { config, type Language } from "./config";
import en from "./lang/en.json";

export type Key = keyof typeof en;

const store = "barong.language";
let base: Record<string, string> = { ...en };
let words: Record<string, string> = base;
let app: "portal" | "console" = "portal";
let current: Language = config.languages.find((l) => l.tag === "en")!;

/** The language that is shown. */
export const language = (): Language => current;

/** Adds the English words of an application beside the portal's own, before a language is loaded. */
export function addWords(more: Record<string, string>): void {
  words = base = { ...more, ...base };
}

/** Reports whether there are words for the key. */
export const hasWords = (key: string): boolean => Object.hasOwn(words, key);

/** Letters that are written from the right, and marks that turn the direction. */
const turning = /[\u0590-\u08ff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc]/;

/** What somebody typed, in a line with other words: it does not change their order, whatever it is written in. */
export const apart = (text: string): string =>
  turning.test(text) || current.direction === "rtl" ? `\u2068${text.replace(/[\u202a-\u202e\u2066-\u2069]/g, "")}\u2069` : text;

/** Facts in one line. Those that there are not are left out. */
export const joined = (...facts: (string | false | null | undefined)[]): string => facts.flatMap((f) => (f ? [apart(f)] : [])).join(" · ");

/** The words of a key that the type of catalogues does not hold. */
export function say(key: string, values: Record<string, string | number> = {}): string {
  return (words[key] ?? key).replace(/\{(\w+)\}/g, (whole, name: string) => (name in values ? apart(String(values[name])) : whole));
}

/** The words of a key. */
export const t = (key: Key, values?: Record<string, string | number>): string => say(key, values);

/** The words of a key in the form that the number asks for: key.one, key.few, key.many, key.other. */
export function tn(key: string, n: number): string {
  const form = `${key}.${new Intl.PluralRules(current.tag).select(n)}`;
  return say(hasWords(form) ? form : `${key}.other`, { n: new Intl.NumberFormat(current.tag).format(n) });
}

function wanted(): Language {
  const find = (tag: string): Language | undefined =>
    config.languages.find((l) => l.tag.toLowerCase() === tag.toLowerCase()) ??
    config.languages.find((l) => l.tag.split("-")[0] === tag.toLowerCase().split("-")[0]);
  let kept: string | null = null;
  try {
    kept = localStorage.getItem(store);
  } catch {
    // A browser that keeps nothing: the languages that it names decide.
  }
  for (const tag of [...(kept ? [kept] : []), ...navigator.languages]) {
    const found = find(tag);
    if (found) return found;
  }
  return find("en")!;
}

/** Puts the language in force that was chosen here, or that the browser asks for. */
export async function loadLanguage(of: "portal" | "console"): Promise<void> {
  app = of;
  await put(wanted());
}

async function put(chosen: Language): Promise<void> {
  const over: Record<string, string>[] = await Promise.all(
    (app === "console" ? [...chosen.portal, ...chosen.console] : chosen.portal).map(async (url) => {
      const answer = await fetch(url);
      return answer.ok ? answer.json() : {};
    }),
  ).catch(() => []);
  if (over.length > 0 || chosen.tag === "en") {
    words = Object.assign({ ...base }, ...over);
    current = chosen;
  }
  document.documentElement.lang = current.tag;
  document.documentElement.dir = current.direction;
}

/** Chooses a language, for here and for later. What shows words is to be drawn again then. */
export async function chooseLanguage(tag: string): Promise<void> {
  try {
    localStorage.setItem(store, tag);
  } catch {
    // Not kept: the page that is loaded next is in the browser's language.
  }
  const chosen = config.languages.find((l) => l.tag === tag);
  if (chosen) await put(chosen);
}

/** A time for people. */
export function time(text: string): string {
  return new Intl.DateTimeFormat(current.tag, { dateStyle: "medium", timeStyle: "short" }).format(new Date(text));
}

/** A day (YYYY-MM-DD) for people. */
export function day(text: string): string {
  return new Intl.DateTimeFormat(current.tag, { dateStyle: "long", timeZone: "UTC" }).format(new Date(text + "T00:00:00Z"));
}

/** How long ago a time was, for people. */
export function ago(text: string, now = Date.now()): string {
  const seconds = Math.round((new Date(text).getTime() - now) / 1000);
  const steps: [Intl.RelativeTimeFormatUnit, number][] = [
    ["day", 86400],
    ["hour", 3600],
    ["minute", 60],
  ];
  const format = new Intl.RelativeTimeFormat(current.tag, { numeric: "auto" });
  for (const [unit, size] of steps) {
    if (Math.abs(seconds) >= size) return format.format(Math.trunc(seconds / size), unit);
  }
  return format.format(Math.min(seconds, 0), "second");
}

/** The name of a country (ISO 3166-1 alpha-2) in the language that is shown. */
export function country(code: string): string {
  try {
    return new Intl.DisplayNames(current.tag, { type: "region" }).of(code.toUpperCase()) ?? code;
  } catch {
    return code;
  }
}

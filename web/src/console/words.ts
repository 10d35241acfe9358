/** The console's own words. */
import words from "../lang/console.en.json";
import { hasWords, say } from "../i18n";

export type Word = keyof typeof words;

/** The words of a key. */
export const w = (key: Word, values?: Record<string, string | number>): string => say(key, values);

/** What somebody did, in words. */
export const deed = (topic: string, action: string): string => (hasWords(`action.${topic}.${action}`) ? say(`action.${topic}.${action}`) : named("action", action));

/** The words for one of the API's own, such as a state, or that one itself where there are none. */
export const named = (family: string, value: string): string => (hasWords(`${family}.${value}`) ? say(`${family}.${value}`) : value);

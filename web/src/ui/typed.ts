/**
 * What was typed into a form whose sending found that the session had ended. It is there again for the same person, in the same
 * tab, once they have signed in. Secrets, codes and files are not kept.
 */
import { whose } from "../api";

interface Typed {
  at: number;
  uid: string;
  path: string;
  form: string;
  values: Record<string, string>;
}

const store = "barong.typed";
/** So long it is kept, in milliseconds. */
const life = 3_600_000;

const fields = (form: HTMLFormElement) =>
  [...form.elements].filter(
    (e): e is HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement =>
      "name" in e && e.name !== "" && !["password", "file", "hidden", "submit", "button"].includes((e as HTMLInputElement).type) &&
      e.getAttribute("autocomplete") !== "one-time-code" && !e.closest(".password, .captcha"),
  );

const ticked = (e: Element): e is HTMLInputElement => e instanceof HTMLInputElement && ["checkbox", "radio"].includes(e.type);

/** Keeps what stands in a form. */
export function keepTyped(form: HTMLFormElement, name: string): void {
  const uid = whose();
  if (!uid) return;
  const values = Object.fromEntries(fields(form).map((e) => [e.name, ticked(e) ? String(e.checked) : e.value]));
  try {
    sessionStorage.setItem(store, JSON.stringify({ at: Date.now(), uid, path: location.pathname, form: name, values } satisfies Typed));
  } catch {
    // Not kept: it is to be typed again.
  }
}

/** Puts back what was kept of a form, once, and reports whether there was anything. */
export function putBack(form: HTMLFormElement, name: string): boolean {
  try {
    const kept = JSON.parse(sessionStorage.getItem(store) ?? "null") as Typed | null;
    if (!kept || kept.path !== location.pathname || kept.form !== name) return false;
    sessionStorage.removeItem(store);
    if (kept.uid !== whose() || Date.now() - kept.at > life) return false;
    for (const e of fields(form)) {
      const value = kept.values[e.name];
      if (value === undefined) continue;
      if (ticked(e)) e.checked = value === "true";
      else e.value = value;
      e.dispatchEvent(new Event("input", { bubbles: true }));
    }
    return Object.keys(kept.values).length > 0;
  } catch {
    return false;
  }
}

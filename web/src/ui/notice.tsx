/** What was done, told once: on this page, or on the one that comes next. */
import { useEffect, useState } from "preact/hooks";

let told = "";
let coming = "";
const listeners = new Set<() => void>();
const draw = () => listeners.forEach((l) => l());

/** Tells it on the page that is shown. */
export function tell(text: string): void {
  told = text;
  draw();
}

/** Tells it on the page that is shown next. */
export function tellNext(text: string): void {
  coming = text;
}

/** A page is shown: what was told on the one before is not told any more. */
export function turnPage(): void {
  told = coming;
  coming = "";
  draw();
}

/** Where it is told. */
export function Notice() {
  const [, again] = useState(0);
  useEffect(() => {
    const l = () => again((n) => n + 1);
    listeners.add(l);
    return () => void listeners.delete(l);
  }, []);
  return <div class={told ? "notice told" : ""} role="status">{told}</div>;
}

/** What was changed from here: by whom, what, how it stood before and stands now, and how to take it back. */
import { useEffect, useState } from "preact/hooks";
import { joined, t, time } from "../i18n";
import { useMe } from "../me";
import { Action } from "../ui/form";
import { tell } from "../ui/notice";
import { w } from "./words";

export interface Change {
  /** What was changed: "State of a@b.c". */
  what: string;
  before: string;
  after: string;
  /** Does the opposite; absent where there is none. */
  undo?: () => Promise<unknown>;
}

interface Kept extends Change {
  id: number;
  at: string;
  undone: boolean;
}

const most = 10;
/** So many are shown; the others are opened. */
const shown = 2;
let kept: Kept[] = [];
let last = 0;
const listeners = new Set<() => void>();
const draw = () => listeners.forEach((l) => l());

/** Keeps a change that was made, tells it, and has what is shown read anew. */
export async function changed(change: Change): Promise<void> {
  kept = [{ ...change, id: ++last, at: new Date().toISOString(), undone: false }, ...kept].slice(0, most);
  tell(`${change.what}: ${change.before} → ${change.after}`);
  draw();
}

/** Reads something anew whenever a change was made or taken back. */
export function useChanges(again: () => void): void {
  useEffect(() => {
    listeners.add(again);
    return () => void listeners.delete(again);
  });
}

/** The changes of this visit, the latest first. */
export function Changes() {
  const me = useMe();
  const [, again] = useState(0);
  useChanges(() => again((n) => n + 1));
  if (kept.length === 0) return null;
  const undo = async (c: Kept) => {
    await c.undo!();
    c.undone = true;
    tell(`${c.what}: ${c.after} → ${c.before}`);
    draw();
  };
  const rows = (list: Kept[]) => (
    <ul class="rows">
      {list.map((c) => (
        <li key={c.id}>
          <strong>{c.what}</strong>
          <span>
            <del>{c.before}</del> → <ins>{c.after}</ins>
          </span>
          <span class="muted">{joined(me?.email, time(c.at))}</span>
          {c.undone ? <span class="badge">{w("c.undone")}</span> : c.undo ? <Action quiet label={w("c.undo")} hidden={c.what} run={() => undo(c)} /> : <span class="muted">{w("c.undo.none")}</span>}
        </li>
      ))}
    </ul>
  );
  return (
    <section aria-labelledby="changes">
      <h2 id="changes">{w("c.changes")}</h2>
      {rows(kept.slice(0, shown))}
      {kept.length > shown && (
        <details>
          <summary>{w("c.changes.before", { n: kept.length - shown })}</summary>
          {rows(kept.slice(shown))}
        </details>
      )}
    </section>
  );
}

/** A button that asks once more before it does what cannot be taken back easily. */
export function Confirm({ label, text, hidden, run, danger = true }: { label: string; text: string; hidden?: string; run: () => Promise<unknown>; danger?: boolean }) {
  const [asks, ask] = useState(false);
  if (!asks) {
    return (
      <button type="button" class="quiet" onClick={() => ask(true)}>
        {label}
        {hidden && <span class="hidden"> {hidden}</span>}
      </button>
    );
  }
  return (
    <span class="confirm" role="group" aria-label={label}>
      <span>{text}</span>{" "}
      <Action danger={danger} label={label} {...(hidden ? { hidden } : {})} run={async () => (await run(), ask(false))} />{" "}
      <button type="button" class="quiet" onClick={() => ask(false)}>{t("cancel")}</button>
    </span>
  );
}

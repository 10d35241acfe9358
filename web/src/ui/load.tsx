/** What is read from the API before a page can show it. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { isSignedOut } from "../api";
import { faults, type Fault } from "../faults";
import { t } from "../i18n";
import { signInAgain } from "../me";
import { Alert, Spinner } from "./form";

export interface Loaded<T> {
  value: T | undefined;
  wrong: Fault[];
  busy: boolean;
  /** Reads it anew; what was read stays until then. */
  again: () => Promise<void>;
}

/** Reads something, and again whenever one of the keys changes. */
export function useLoad<T>(read: () => Promise<T>, keys: unknown[] = []): Loaded<T> {
  const [state, set] = useState<{ value: T | undefined; wrong: Fault[]; busy: boolean }>({ value: undefined, wrong: [], busy: true });
  const turn = useRef(0);
  const again = async () => {
    const mine = ++turn.current;
    set((s) => ({ ...s, busy: true }));
    try {
      const value = await read();
      if (mine === turn.current) set({ value, wrong: [], busy: false });
    } catch (e) {
      if (isSignedOut(e)) return signInAgain(e);
      if (mine === turn.current) set((s) => ({ ...s, wrong: faults(e), busy: false }));
    }
  };
  useEffect(() => {
    void again();
    return () => void turn.current++;
  }, keys);
  return { ...state, again };
}

/** Shows what was read; until then that it is being read, or why it cannot be, with a way to try again. */
export function Show<T>({ of, children }: { of: Loaded<T>; children: (value: T) => ComponentChildren }) {
  if (of.value !== undefined && of.wrong.length === 0) return <div aria-busy={of.busy}>{children(of.value)}</div>;
  if (of.wrong.length > 0) {
    return (
      <>
        <Alert faults={of.wrong} />
        <button type="button" onClick={() => void of.again()}>{t("again")}</button>
      </>
    );
  }
  return <Waiting />;
}

/** Says that something goes on. */
export const Waiting = ({ text }: { text?: string }) => (
  <p class="waiting" role="status" aria-busy="true">
    <Spinner /> {text ?? t("loading")}
  </p>
);

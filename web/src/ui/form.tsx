/** Forms. Every field has a label and the name of the API's parameter; what is refused is said in words, beside its code. */
import type { ComponentChildren } from "preact";
import { createContext } from "preact";
import { useContext, useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { isSignedOut } from "../api";
import { faults, onward, type Fault } from "../faults";
import { t } from "../i18n";
import { signInAgain } from "../me";
import { tell } from "./notice";
import { keepTyped, putBack } from "./typed";

/** What was refused of the form around a field, and by which ids the alert says so. */
const Wrong = createContext<{ faults: Fault[]; id: string }>({ faults: [], id: "" });

/**
 * Whether a press only belongs to the one before it: the second of a double click, or a key that is held down. What the first one did may be
 * done already, and another thing may stand in its place.
 */
export const echoes = (e: Event): boolean => (e instanceof MouseEvent && e.detail > 1) || (e instanceof KeyboardEvent && e.repeat);

/** Tells what was refused, and why. */
export function Alert({ faults, focus = false, id }: { faults: Fault[]; focus?: boolean; id?: string }) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (focus) box.current?.focus();
  }, [faults]);
  if (faults.length === 0) return null;
  return (
    <div class="alert" role="alert" tabIndex={-1} ref={box} data-code={faults.map((f) => f.code).join(" ")}>
      {faults.map((f, i) => (
        <p key={f.code} id={id && `${id}-${i}`} data-code={f.code}>
          {f.text}
          {onward[f.code] && <> <a href={onward[f.code]!.href}>{t(onward[f.code]!.words)}</a></>}
        </p>
      ))}
    </div>
  );
}

/** Keeps a held Enter from doing it again and again, where it does not begin lines. */
const heldEnter = (e: KeyboardEvent): void => {
  if (e.key === "Enter" && echoes(e) && !(e.target instanceof HTMLTextAreaElement)) e.preventDefault();
};

export interface FormProps {
  /** What the button says. */
  action: string;
  /** Sends the form. A Refusal that it throws is shown. */
  send: (values: Record<string, string>, form: HTMLFormElement) => Promise<unknown>;
  children?: ComponentChildren;
  /** Beside the button. */
  aside?: ComponentChildren;
  /** Names the form where a page has several. */
  label?: string;
  danger?: boolean;
  /** It is not what the page is mainly for. */
  plain?: boolean;
  /** Empties the fields after it was sent. */
  clears?: boolean;
  /** Refusals that the page treats itself: returns true for them. */
  handles?: (e: unknown) => boolean;
  class?: string;
}

/**
 * A form with one button. While it is being sent it says so, and cannot be sent again. What is right is for the API to say,
 * and not for the browser, which knows fewer addresses and says it otherwise.
 */
export function Form({ action, send, children, aside, label, danger, plain, clears, handles, ...rest }: FormProps) {
  const [wrong, setWrong] = useState<Fault[]>([]);
  const [busy, setBusy] = useState(false);
  const form = useRef<HTMLFormElement>(null);
  const id = useId();
  const sending = useRef(false);

  const submit = async (e: Event) => {
    e.preventDefault();
    if (sending.current) return;
    sending.current = true;
    const values: Record<string, string> = {};
    const puzzle = [...form.current!.querySelectorAll<HTMLInputElement>(".captcha [name]")].map((e) => e.name); // its widget's own
    new FormData(form.current!).forEach((v, k) => {
      if (typeof v === "string" && !puzzle.includes(k)) values[k] = v;
    });
    setWrong([]);
    setBusy(true);
    tell("");
    try {
      await send(values, form.current!);
      if (clears) form.current?.reset();
    } catch (e) {
      if (isSignedOut(e)) {
        keepTyped(form.current!, label ?? action);
        return signInAgain(e);
      }
      if (!handles?.(e)) setWrong(faults(e));
    } finally {
      sending.current = false;
      setBusy(false);
    }
  };

  // Whoever does not see the page hears the alert, and is put where something can be mended.
  useEffect(() => {
    if (wrong.length === 0) return;
    const first = form.current?.querySelector<HTMLElement>("[aria-invalid=true]");
    (first ?? form.current?.querySelector<HTMLElement>("[role=alert]"))?.focus();
  }, [wrong]);

  // A form that goes away gives the focus back to what opened it.
  const before = useRef(document.activeElement).current;
  useEffect(() => {
    if (putBack(form.current!, label ?? action)) setTimeout(() => tell(t("typed.kept"))); // when the page has turned
    return () =>
      void setTimeout(() => {
        if (document.activeElement === document.body && before?.isConnected && before !== document.body) (before as HTMLElement).focus();
      });
  }, []);

  return (
    <form ref={form} onSubmit={submit} onKeyDown={heldEnter} aria-label={label} aria-busy={busy} class={rest.class} method="post" noValidate>
      <Wrong.Provider value={{ faults: wrong, id }}>
        <Alert faults={wrong} id={id} />
        {children}
        <div class="actions">
          <button type="submit" class={danger ? "danger" : plain ? "" : "primary"} aria-disabled={busy} onClick={(e) => echoes(e) && e.preventDefault()}>
            {busy && <Spinner />}
            {action}
          </button>
          {aside}
        </div>
        <span class="hidden" role="status">{busy ? t("busy") : ""}</span>
      </Wrong.Provider>
    </form>
  );
}

export interface FieldProps {
  /** The API's parameter. */
  name: string;
  label: string;
  type?: "text" | "email" | "password" | "tel" | "date" | "file" | "search" | "number" | "datetime-local";
  /** Below the field: what is expected. */
  hint?: ComponentChildren;
  value?: string | null | undefined;
  required?: boolean;
  autocomplete?: string;
  inputMode?: "numeric" | "tel" | "email" | "text";
  pattern?: string;
  max?: string;
  min?: string;
  maxLength?: number;
  placeholder?: string;
  autofocus?: boolean;
  spellcheck?: boolean;
  multiple?: boolean;
  accept?: string;
  rows?: number;
  onInput?: (value: string) => void;
  /** By which codes name the parameter, where that is not its name. */
  also?: string;
  /** Choices: the field is a list of them. */
  options?: { value: string; label: string }[];
}

/** A field with its label, its hint, and what is wrong with it. */
export function Field({ name, label, type = "text", hint, value, options, rows, onInput, autofocus, also, ...rest }: FieldProps) {
  const id = useId();
  const around = useContext(Wrong);
  const told = around.faults.flatMap((f, i) => (f.field === name || (also !== undefined && f.field === also) ? [`${around.id}-${i}`] : []));
  const [shown, setShown] = useState(false);
  const field = useRef<HTMLElement>(null);
  // Before it is seen: whoever sees it may type at once, in another field too.
  useLayoutEffect(() => {
    if (autofocus) field.current?.focus();
  }, []);
  const { autocomplete, ...attributes } = rest;
  const common = {
    id,
    name,
    "aria-invalid": told.length > 0 || undefined,
    "aria-describedby": [...told, ...(hint ? [id + "-hint"] : [])].join(" ") || undefined,
    autoComplete: autocomplete,
    onInput: onInput && ((e: Event) => onInput((e.target as HTMLInputElement).value)),
    ...attributes,
  };
  let input;
  if (options) {
    input = (
      <select {...common} ref={field as never}>
        {options.map((o) => (
          <option key={o.value} value={o.value} selected={o.value === (value ?? "")}>{o.label}</option>
        ))}
      </select>
    );
  } else if (rows) {
    input = <textarea {...common} ref={field as never} rows={rows} dir="auto" defaultValue={value ?? ""} />;
  } else if (type === "password") {
    input = (
      <span class="password">
        <input {...common} ref={field as never} type={(shown ? "text" : "password") as "password"} autoCapitalize="none" spellcheck={false} defaultValue={value ?? ""} />
        <button type="button" class="quiet" aria-controls={id} onClick={() => setShown(!shown)}>
          {t(shown ? "password.hide" : "password.show")}
          <span class="hidden"> {label}</span>
        </button>
      </span>
    );
  } else {
    input = <input {...common} ref={field as never} type={type as "text"} {...(type === "file" ? {} : { defaultValue: value ?? "" })} {...(type === "text" ? { dir: "auto" } : {})} />;
  }
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {input}
      {hint && <div class="hint" id={id + "-hint"}>{hint}</div>}
    </div>
  );
}

/** A box to tick, with its label behind it. Its value is "true". */
export function Check({ name, label, hint, checked, onInput }: { name: string; label: string; hint?: string; checked?: boolean; onInput?: (on: boolean) => void }) {
  const id = useId();
  return (
    <div class="field check">
      <input id={id} type="checkbox" name={name} value="true" defaultChecked={checked ?? false} aria-describedby={hint ? id + "-hint" : undefined}
        onInput={onInput && ((e) => onInput((e.target as HTMLInputElement).checked))} />
      <label for={id}>{label}</label>
      {hint && <div class="hint" id={id + "-hint"}>{hint}</div>}
    </div>
  );
}

/** The field of a second factor's code. */
export function CodeField({ name, label, hint, autofocus }: { name: string; label?: string; hint?: string; autofocus?: boolean }) {
  return <Field name={name} label={label ?? t("field.otp_code")} hint={hint ?? t("otp.hint")} required autocomplete="one-time-code" spellcheck={false}
    {...(autofocus ? { autofocus } : {})} />;
}

/** Shows that something goes on. */
export const Spinner = () => <span class="spinner" aria-hidden="true" />;

/** A button that does something by itself, says that it goes on, and shows what was refused. */
export function Action({ label, run, danger, quiet, hidden }: { label: string; run: () => Promise<unknown>; danger?: boolean; quiet?: boolean; hidden?: string }) {
  const [wrong, setWrong] = useState<Fault[]>([]);
  const [busy, setBusy] = useState(false);
  const running = useRef(false);
  const act = async (e: MouseEvent) => {
    if (running.current || echoes(e)) return;
    running.current = true;
    setWrong([]);
    setBusy(true);
    try {
      await run();
    } catch (e) {
      if (isSignedOut(e)) return signInAgain(e);
      setWrong(faults(e));
    } finally {
      running.current = false;
      setBusy(false);
    }
  };
  return (
    <>
      <button type="button" class={danger ? "danger" : quiet ? "quiet" : ""} aria-disabled={busy} aria-busy={busy} onClick={act} onKeyDown={heldEnter}>
        {busy && <Spinner />}
        {label}
        {hidden && <span class="hidden"> {hidden}</span>}
      </button>
      <Alert faults={wrong} focus />
    </>
  );
}

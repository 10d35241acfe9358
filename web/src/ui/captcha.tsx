/** Puzzles of other providers, in front of what the operator chose. Their scripts are loaded only where one is asked for. */
import { useEffect, useRef, useState } from "preact/hooks";
import { call, Refusal } from "../api";
import { configs, type Configs } from "../configs";
import { language, t } from "../i18n";
import { Waiting } from "./load";

export interface CaptchaState {
  shown: boolean;
  /** What goes along with the call. It is good for one call. */
  response: () => { captcha_response?: unknown };
  /** For Form: shows the puzzle when the call was refused for the lack of one. The refusal is shown too. */
  handles: (e: unknown) => boolean;
  /** Of the widget. */
  solved: (response: unknown) => void;
  /** Shows another puzzle. */
  again: () => void;
  turn: number;
}

/** The captcha of an operation: user_create, session_create, password_reset or email_confirmation. */
export function useCaptcha(operation: string): CaptchaState {
  const [shown, show] = useState(false);
  const [turn, setTurn] = useState(0);
  const response = useRef<unknown>(undefined);
  const again = () => {
    response.current = undefined;
    setTurn((n) => n + 1);
  };
  useEffect(() => {
    configs().then(
      (c) => show(c.captcha_type !== "none" && (c.captcha_endpoints ?? [operation]).includes(operation)),
      () => {}, // the call itself will tell
    );
  }, []);
  return {
    shown,
    turn,
    again,
    solved: (r) => (response.current = r),
    response: () => {
      const captcha_response = response.current;
      if (shown && captcha_response !== undefined) again();
      return captcha_response === undefined ? {} : { captcha_response };
    },
    handles: (e) => {
      if (e instanceof Refusal && e.codes.some((c) => c.startsWith("identity.captcha."))) show(true);
      return false;
    },
  };
}

/** How long a provider may take until people are told that there is no puzzle, in milliseconds. */
const soon = 12_000;

/** The widget. Where it does not come people are told so, with a way to try again: it may come later all the same. */
export function Captcha({ of }: { of: CaptchaState }) {
  const box = useRef<HTMLDivElement>(null);
  const [is, set] = useState<"waiting" | "there" | "missing">("waiting");
  useEffect(() => {
    if (!of.shown) return;
    let current = true;
    const put = (to: typeof is) => current && set(to);
    const place = document.createElement("div");
    box.current!.replaceChildren(place);
    set("waiting");
    const late = setTimeout(() => put("missing"), soon);
    const solved = (response: unknown) => void (current && of.solved(response)); // one that was replaced may still grow old
    const missing = () => (clearTimeout(late), solved(undefined), put("missing"));
    configs()
      .then((c) => widget(c, place, solved, missing))
      .then(() => (clearTimeout(late), put("there")), missing);
    return () => {
      current = false;
      clearTimeout(late);
    };
  }, [of.shown, of.turn]);
  if (!of.shown) return null;
  return (
    <div class="field">
      <div class="captcha" ref={box} role="group" aria-label={t("field.captcha_response")} />
      {is === "waiting" && <Waiting text={t("captcha.loading")} />}
      {is === "missing" && (
        <div class="alert" role="alert" data-code="portal.captcha_missing">
          <p data-code="portal.captcha_missing">{t("code.portal.captcha_missing")}</p>
          <button type="button" onClick={of.again}>{t("again")}</button>
        </div>
      )}
    </div>
  );
}

/** The scripts of the providers, and the name by which each answers. */
const scripts: Record<string, [url: string, name: string]> = {
  recaptcha: ["https://www.google.com/recaptcha/api.js?render=explicit", "grecaptcha"],
  hcaptcha: ["https://js.hcaptcha.com/1/api.js?render=explicit", "hcaptcha"],
  turnstile: ["https://challenges.cloudflare.com/turnstile/v0/api.js?render=explicit", "turnstile"],
  geetest: ["https://static.geetest.com/static/tools/gt.js", "initGeetest"],
};

const loaded: Record<string, Promise<void>> = {};

function load(url: string): Promise<void> {
  return (loaded[url] ??= new Promise<void>((resolve, reject) => {
    const s = document.createElement("script");
    s.src = url;
    s.async = true;
    s.onload = () => resolve();
    s.onerror = () => {
      delete loaded[url];
      s.remove();
      reject(new Error("not loaded: " + url));
    };
    document.head.append(s);
  }));
}

interface Widget {
  ready?: (f: () => void) => void;
  render: (at: HTMLElement, options: Record<string, unknown>) => unknown;
}

/** Draws the widget. solved gets its answer, or undefined when that has grown old; missing is called when it fails later. */
async function widget(c: Configs, at: HTMLElement, solved: (response: unknown) => void, missing: () => void): Promise<void> {
  const script = scripts[c.captcha_type];
  if (!script) throw new Error("unknown captcha");
  await load(c.captcha_type === "recaptcha" ? script[0] + "&hl=" + language().tag : script[0]);
  const api = (window as unknown as Record<string, unknown>)[script[1]];
  const dark = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  if (c.captcha_type === "geetest") {
    const begun = await call<{ gt: string; challenge: string }>("GET", "/identity/users/register_geetest");
    await new Promise<void>((resolve, reject) => {
      (api as (o: object, f: (g: Geetest) => void) => void)(
        { ...begun, offline: false, new_captcha: true, product: "popup", width: "100%", lang: language().tag, onError: reject },
        (g) => {
          g.appendTo(at);
          g.onReady(resolve);
          g.onSuccess(() => solved(g.getValidate()));
          g.onError(() => (missing(), reject(new Error("geetest"))));
        },
      );
    });
    return;
  }
  const w = api as Widget;
  if (w.ready && c.captcha_type === "recaptcha") await new Promise<void>((resolve) => w.ready!(resolve));
  w.render(at, {
    sitekey: c.captcha_id, theme: dark, hl: language().tag, language: language().tag, size: at.clientWidth < 304 ? "compact" : "normal",
    callback: solved, "expired-callback": () => solved(undefined), "error-callback": () => (missing(), true),
  });
}

interface Geetest {
  appendTo: (at: HTMLElement) => void;
  onReady: (f: () => void) => void;
  onError: (f: () => void) => void;
  onSuccess: (f: () => void) => void;
  getValidate: () => unknown;
}

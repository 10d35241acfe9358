/** Puzzles of other providers, in front of what the operator chose. Their scripts are loaded only where one is asked for. */
import { useEffect, useRef, useState } from "preact/hooks";
import { call, Refusal } from "../api";
import { configs, type Configs } from "../configs";
import { language, t } from "../i18n";

export interface CaptchaState {
  shown: boolean;
  /** What goes along with the call. It is good for one call. */
  response: () => { captcha_response?: unknown };
  /** For Form: shows the puzzle when the call was refused for the lack of one. The refusal is shown too. */
  handles: (e: unknown) => boolean;
  /** Of the widget. */
  solved: (response: unknown) => void;
  turn: number;
}

/** The captcha of an operation: user_create, session_create, password_reset or email_confirmation. */
export function useCaptcha(operation: string): CaptchaState {
  const [shown, show] = useState(false);
  const [turn, again] = useState(0);
  const response = useRef<unknown>(undefined);
  useEffect(() => {
    configs().then(
      (c) => show(c.captcha_type !== "none" && (c.captcha_endpoints ?? [operation]).includes(operation)),
      () => {}, // the call itself will tell
    );
  }, []);
  return {
    shown,
    turn,
    solved: (r) => (response.current = r),
    response: () => {
      const captcha_response = response.current;
      response.current = undefined;
      if (shown) again((n) => n + 1);
      return captcha_response === undefined ? {} : { captcha_response };
    },
    handles: (e) => {
      if (e instanceof Refusal && e.codes.some((c) => c.startsWith("identity.captcha."))) show(true);
      return false;
    },
  };
}

/** The widget. */
export function Captcha({ of }: { of: CaptchaState }) {
  const box = useRef<HTMLDivElement>(null);
  const [failed, fail] = useState(false);
  useEffect(() => {
    if (!of.shown) return;
    fail(false);
    const place = document.createElement("div");
    box.current!.replaceChildren(place);
    configs()
      .then((c) => widget(c, place, of.solved))
      .catch(() => fail(true));
  }, [of.shown, of.turn]);
  if (!of.shown) return null;
  return (
    <div class="field">
      <div class="captcha" ref={box} />
      {failed && <p class="alert" role="alert" data-code="portal.captcha_missing">{t("code.portal.captcha_missing")}</p>}
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

async function widget(c: Configs, at: HTMLElement, solved: (response: unknown) => void): Promise<void> {
  const script = scripts[c.captcha_type];
  if (!script) throw new Error("unknown captcha");
  await load(script[0]);
  const api = (window as unknown as Record<string, unknown>)[script[1]];
  const dark = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  if (c.captcha_type === "geetest") {
    const begun = await call<{ gt: string; challenge: string }>("GET", "/identity/users/register_geetest");
    (api as (o: object, f: (g: Geetest) => void) => void)(
      { ...begun, offline: false, new_captcha: true, product: "popup", width: "100%", lang: language().tag },
      (g) => {
        g.appendTo(at);
        g.onSuccess(() => solved(g.getValidate()));
      },
    );
    return;
  }
  const w = api as Widget;
  const render = () =>
    w.render(at, {
      sitekey: c.captcha_id, theme: dark, hl: language().tag, language: language().tag,
      callback: solved, "expired-callback": () => solved(undefined), "error-callback": () => solved(undefined),
    });
  if (c.captcha_type === "recaptcha" && w.ready) w.ready(render);
  else render();
}

interface Geetest {
  appendTo: (at: HTMLElement) => void;
  onSuccess: (f: () => void) => void;
  getValidate: () => unknown;
}

/** /accounts/signin: by password and second factor, by passkey, or by way of another provider. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { address, call, opened, Refusal, session } from "../api";
import { faults, told, type Fault } from "../faults";
import { config } from "../config";
import { t } from "../i18n";
import { loadMe, type Me } from "../me";
import { hasPasskeys, offersPasskeys, signInByPasskey } from "../passkey";
import { providers as known, type Provider } from "../providers";
import type { PageProps } from "../router";
import { bounced, goOn } from "../way";
import { Captcha, useCaptcha } from "../ui/captcha";
import { Action, Alert, CodeField, Field, Form } from "../ui/form";

type User = Me & { csrf_token: string };

/** How long options of a passkey are good for, less a margin. */
const optionsLife = 4 * 60_000;

export function SignIn({ query }: PageProps) {
  const rd = query.get("rd");
  // What is proven of two factors: a password that goes along again, or a sign-in at a provider, which a cookie holds.
  const [proven, setProven] = useState<{ email: string; password: string } | "provider" | undefined>(() =>
    query.get("error") === "identity.session.missing_otp" ? "provider" : undefined,
  );
  const [signedIn, setSignedIn] = useState<Me>();
  const [wrong, setWrong] = useState<Fault[]>(() => told(query).filter((f) => f.code !== "identity.session.missing_otp"));
  const [usable, setUsable] = useState(true); // false: passkeys are of another domain
  const captcha = useCaptcha("session_create");
  const waiting = useRef<AbortController>(undefined);

  const done = (user: User) => {
    waiting.current?.abort();
    opened(user);
    goOn(rd);
    return new Promise<void>(() => {}); // busy until the browser is gone
  };

  // Who is signed in already goes on, unless the page that was wanted sends them back here.
  useEffect(() => {
    void session()
      .then((s) => (s.active ? loadMe() : null))
      .then((me) => {
        if (!me || query.has("error")) return;
        if (bounced(rd)) setSignedIn(me);
        else goOn(rd);
      })
      .catch((e) => setWrong(faults(e)));
  }, []);

  // Passkeys are offered where the address is typed. The options do not live for ever, so they are asked for anew.
  useEffect(() => {
    if (!config.passkeys || proven) return;
    let over = false;
    const wait = async () => {
      if (!(await offersPasskeys()) || over) return;
      waiting.current = new AbortController();
      const mine = waiting.current;
      try {
        await done(await signInByPasskey<User>(mine.signal, "conditional"));
      } catch (e) {
        if (mine.signal.aborted || !(e instanceof Refusal)) return;
        if (e.status > 0) setWrong(faults(e));
        if (e.has("portal.passkey_domain")) setUsable(false);
      }
    };
    void wait();
    const timer = setInterval(() => {
      if (document.visibilityState !== "visible") return;
      waiting.current?.abort();
      void wait();
    }, optionsLife);
    return () => {
      over = true;
      clearInterval(timer);
      waiting.current?.abort();
    };
  }, [proven]);

  const byPasskey = async () => {
    setWrong([]);
    waiting.current?.abort();
    await done(await signInByPasskey<User>(new AbortController().signal));
  };

  const byPassword = async (values: Record<string, string>) => {
    setWrong([]);
    if (proven === "provider") return done(await call<User>("POST", "/identity/sessions/provider", values));
    return done(await call<User>("POST", "/identity/sessions", { ...proven, ...values, ...captcha.response() }));
  };

  /** What is no failure but the next step, or the step before. */
  const steps = (e: unknown): boolean => {
    if (!(e instanceof Refusal)) return false;
    if (!proven && e.has("identity.session.missing_otp")) {
      const values = new FormData(document.querySelector<HTMLFormElement>("#main form")!);
      setProven({ email: String(values.get("email")), password: String(values.get("password")) });
      return true;
    }
    if (proven === "provider" && e.has("identity.provider.invalid_flow")) {
      setWrong(faults(e));
      setProven(undefined);
      return true;
    }
    return captcha.handles(e);
  };

  if (signedIn) {
    return (
      <>
        <p>{t("signin.as", { email: signedIn.email })}</p>
        <p class="actions">
          <button type="button" class="primary" onClick={() => goOn(rd)}>{t("signin.goon")}</button>
          <a class="button" href="/accounts/signout">{t("signin.other")}</a>
        </p>
      </>
    );
  }
  if (proven) {
    return (
      <Form key="otp" action={t("signin.action")} send={byPassword} handles={steps}
        aside={<button type="button" class="quiet" onClick={() => setProven(undefined)}>{t("back")}</button>}>
        <p>{t("signin.otp")}</p>
        <CodeField name="otp_code" hint={t("signin.otp.hint")} autofocus />
        {proven !== "provider" && <Captcha of={captcha} />}
      </Form>
    );
  }
  return (
    <>
      <Alert faults={wrong} />
      <Form key="password" action={t("signin.action")} send={byPassword} handles={steps}
        aside={<a href="/accounts/forgot">{t("signin.forgot")}</a>}>
        <Field name="email" type="email" label={t("field.email")} required autocomplete={config.passkeys ? "username webauthn" : "username"} spellcheck={false} />
        <Field name="password" type="password" label={t("field.password")} required autocomplete="current-password" />
        <Captcha of={captcha} />
      </Form>
      <Others rd={rd} byPasskey={usable ? byPasskey : undefined}>
        <p class="foot">
          {t("signin.new")} <a href={"/accounts/signup" + (rd ? "?rd=" + encodeURIComponent(rd) : "")}>{t("signup.link")}</a>
        </p>
      </Others>
    </>
  );
}

/** The ways in beside the password, and what comes below them: when it is there nothing moves any more under somebody's finger. */
function Others({ rd, byPasskey, children }: { rd: string | null; byPasskey: (() => Promise<void>) | undefined; children: ComponentChildren }) {
  const [providers, setProviders] = useState<Provider[]>();
  useEffect(() => {
    known().then(setProviders, () => setProviders([])); // the password is still there
  }, []);
  const passkeys = byPasskey && config.passkeys && hasPasskeys();
  return (
    <>
      {(passkeys || !!providers?.length) && (
        <div class="others">
          <p class="or">
            <span>{t("signin.or")}</span>
          </p>
          {passkeys && <Action label={t("signin.passkey")} run={byPasskey} />}
          {providers?.map((p) => (
            <a key={p.id} class="button" href={address(`/identity/providers/${encodeURIComponent(p.id)}/start`, { rd })}>
              {t("signin.provider", { name: p.name })}
            </a>
          ))}
        </div>
      )}
      {providers && children}
    </>
  );
}

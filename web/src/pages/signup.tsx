/** /accounts/signup and /accounts/confirmation: an account, and the mail that confirms its address. */
import { useEffect, useState } from "preact/hooks";
import { call, opened } from "../api";
import { faults, type Fault } from "../faults";
import { language, t } from "../i18n";
import { setMe, type Me } from "../me";
import { go, type PageProps } from "../router";
import { goOn, keepWanted, takeWanted } from "../way";
import { Captcha, useCaptcha } from "../ui/captcha";
import { Alert, Field, Form } from "../ui/form";
import { Waiting } from "../ui/load";
import { NewPassword } from "../ui/newpassword";
import { tellNext } from "../ui/notice";

type User = Me & { csrf_token: string };

export function SignUp({ query }: PageProps) {
  const rd = query.get("rd");
  const captcha = useCaptcha("user_create");
  const [made, setMade] = useState<string>();
  const send = async (values: Record<string, string>) => {
    const { refid, ...rest } = values;
    const user = await call<User>("POST", "/identity/users", {
      ...rest,
      ...(refid ? { refid } : {}),
      lang: language().tag,
      data: JSON.stringify({ language: language().tag }),
      ...captcha.response(),
    });
    opened(user);
    keepWanted(rd);
    setMade(user.email);
  };
  if (made) {
    return (
      <>
        <p>{t("signup.mail", { email: made })}</p>
        <p class="muted">{t("signup.mail.hint")}</p>
        <Resend email={made} />
        <p class="foot">
          <a href="/accounts/">{t("signup.later")}</a>
        </p>
      </>
    );
  }
  return (
    <>
      <Form action={t("signup.action")} send={send} handles={captcha.handles}>
        <Field name="email" type="email" label={t("field.email")} required autocomplete="username" spellcheck={false} />
        <NewPassword name="password" label={t("field.password")} />
        <Field name="refid" label={t("field.refid")} hint={t("signup.refid.hint")} value={query.get("refid")} spellcheck={false} />
        <Captcha of={captcha} />
      </Form>
      <p class="foot">
        {t("signup.have")} <a href={"/accounts/signin" + (rd ? "?rd=" + encodeURIComponent(rd) : "")}>{t("signin.link")}</a>
      </p>
    </>
  );
}

/** Sends the mail again, to an address that is known or asked for. */
export function Resend({ email }: { email?: string }) {
  const captcha = useCaptcha("email_confirmation");
  const [sent, setSent] = useState(0);
  return (
    <>
      <Form action={t("resend.action")} plain={email !== undefined} handles={captcha.handles}
        send={async (values) => {
          setSent(0);
          await call("POST", "/identity/users/email/generate_code", { email, ...values, lang: language().tag, ...captcha.response() });
          setSent(Date.now());
        }}>
        {!email && <Field name="email" type="email" label={t("field.email")} required autocomplete="username" spellcheck={false} />}
        <Captcha of={captcha} />
      </Form>
      <div role="status" class={sent ? "notice" : ""}>{sent ? t("resend.sent") : ""}</div>
    </>
  );
}

export function Confirmation({ query }: PageProps) {
  const token = query.get("confirmation_token") ?? "";
  const [wrong, setWrong] = useState<Fault[]>();
  useEffect(() => {
    if (!token) return setWrong([]);
    history.replaceState(null, "", location.pathname); // the token opens a session: it is not left in the history
    call<User>("POST", "/identity/users/email/confirm_code", { token, lang: language().tag }).then(
      (user) => {
        opened(user);
        setMe(null);
        const wanted = takeWanted();
        if (wanted) return goOn(wanted);
        tellNext(t("confirmation.done", { email: user.email }));
        go("/accounts/", true);
      },
      (e) => setWrong(faults(e)),
    );
  }, []);
  if (!wrong) return <Waiting text={t("confirmation.busy")} />;
  const confirmed = wrong.some((f) => f.code === "identity.user.active_or_doesnt_exist");
  return (
    <>
      <Alert faults={wrong} />
      {confirmed && (
        <p>
          <a class="button primary" href="/accounts/signin">{t("signin.link")}</a>
        </p>
      )}
      <p>{t("confirmation.again")}</p>
      <Resend />
      {!confirmed && <p class="foot"><a href="/accounts/signin">{t("signin.link")}</a></p>}
    </>
  );
}

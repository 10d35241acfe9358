/** /accounts/forgot and /accounts/password_reset: a new password by way of the mailbox. */
import { useState } from "preact/hooks";
import { call, Refusal } from "../api";
import { language, t } from "../i18n";
import { go, type PageProps } from "../router";
import { Captcha, useCaptcha } from "../ui/captcha";
import { Alert, Field, Form } from "../ui/form";
import { NewPassword } from "../ui/newpassword";
import { tellNext } from "../ui/notice";

export function Forgot() {
  const captcha = useCaptcha("password_reset");
  const [sent, setSent] = useState<string>();
  if (sent) {
    return (
      <>
        <p role="status">{t("forgot.sent", { email: sent })}</p>
        <p class="muted">{t("forgot.sent.hint")}</p>
        <p class="actions">
          <button type="button" onClick={() => setSent(undefined)}>{t("forgot.again")}</button>
          <a href="/accounts/signin">{t("signin.link")}</a>
        </p>
      </>
    );
  }
  return (
    <>
      <p>{t("forgot.text")}</p>
      <Form action={t("forgot.action")} handles={captcha.handles} aside={<a href="/accounts/signin">{t("signin.link")}</a>}
        send={async (values) => {
          await call("POST", "/identity/users/password/generate_code", { ...values, lang: language().tag, ...captcha.response() });
          setSent(values["email"]);
        }}>
        <Field name="email" type="email" label={t("field.email")} required autocomplete="username" spellcheck={false} />
        <Captcha of={captcha} />
      </Form>
    </>
  );
}

/** Refusals after which the link is of no use any more. */
const spent = (e: unknown): boolean =>
  e instanceof Refusal && e.codes.some((c) => c.startsWith("jwt.") || c === "identity.user.utilized_token" || c === "record.not_found");

export function Reset({ query }: PageProps) {
  const [token] = useState(query.get("reset_token") ?? "");
  const [old, setOld] = useState(token === "");
  const send = async (values: Record<string, string>) => {
    try {
      await call("POST", "/identity/users/password/confirm_code", { reset_password_token: token, ...values, lang: language().tag });
    } catch (e) {
      setOld(spent(e));
      throw e;
    }
    tellNext(t("reset.done"));
    go("/accounts/signin", true);
  };
  return (
    <>
      {token === "" && <Alert faults={[{ code: "identity.user.missing_pass_token", text: t("reset.missing") }]} />}
      {token !== "" && (
        <Form action={t("reset.action")} send={send}>
          <NewPassword name="password" label={t("field.new_password")} />
          <Field name="confirm_password" type="password" label={t("field.confirm_password")} required autocomplete="new-password" />
        </Form>
      )}
      {old && (
        <p class="foot">
          {token !== "" && t("reset.old")} <a href="/accounts/forgot">{t("reset.another")}</a>
        </p>
      )}
    </>
  );
}

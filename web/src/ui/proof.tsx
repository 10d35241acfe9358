/** What a change of credentials asks for again: the second factor's code or, without one, the password. */
import { t } from "../i18n";
import { useMe } from "../me";
import { CodeField, Field } from "./form";

export function Proof() {
  const me = useMe();
  return me?.otp ? <CodeField name="totp_code" label={t("field.totp_code")} /> : <Field name="password" type="password" label={t("field.your_password")} required autocomplete="current-password" />;
}

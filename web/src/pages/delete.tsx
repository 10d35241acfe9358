/** /accounts/delete and /accounts/signout. */
import { call, closed, Refusal } from "../api";
import { t } from "../i18n";
import { loadMe, setMe, useMe } from "../me";
import { go, type PageProps } from "../router";
import { Check, CodeField, Field, Form } from "../ui/form";
import { Show, useLoad } from "../ui/load";
import { tellNext } from "../ui/notice";

/** Says goodbye at the sign-in page. */
function leave(text: string, rd?: string | null): void {
  closed();
  tellNext(text);
  go("/accounts/signin" + (rd ? "?rd=" + encodeURIComponent(rd) : ""), true);
  setMe(null);
}

export function Delete() {
  const me = useMe();
  if (!me) return null;
  return (
    <section aria-label={t("delete.title")}>
      <p>{t("delete.text")}</p>
      <ul>
        <li>{t("delete.sessions")}</li>
        <li>{t("delete.keys")}</li>
        <li>{t("delete.email", { email: me.email })}</li>
      </ul>
      <Form action={t("delete.action")} danger aside={<a href="/accounts/">{t("cancel")}</a>}
        send={async (values) => {
          await call("DELETE", "/resource/users/me", values);
          leave(t("delete.done"));
        }}>
        <Field name="password" type="password" label={t("field.password")} required autocomplete="current-password" />
        {me.otp && <CodeField name="otp_code" />}
      </Form>
    </section>
  );
}

export function SignOut({ query }: PageProps) {
  const rd = query.get("rd");
  const account = useLoad(async () => {
    const me = await loadMe();
    if (!me) go("/accounts/signin" + (rd ? "?rd=" + encodeURIComponent(rd) : ""), true); // done already
    return me;
  });
  return (
    <Show of={account}>
      {(me) =>
        me && (
          <>
            <p>{t("signout.text", { email: me.email })}</p>
            <Form action={t("signout.action")} aside={<a href="/accounts/">{t("cancel")}</a>}
              send={async (values) => {
                if (values["everywhere"]) await call("DELETE", "/resource/sessions");
                try {
                  await call("DELETE", "/identity/sessions");
                } catch (e) {
                  if (!(e instanceof Refusal) || !e.has("identity.session.not_found")) throw e; // it has ended meanwhile
                }
                leave(t("signout.done"), rd);
              }}>
              <Check name="everywhere" label={t("signout.everywhere")} hint={t("signout.everywhere.hint")} />
            </Form>
          </>
        )
      }
    </Show>
  );
}

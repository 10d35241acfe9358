/** /accounts/phones: numbers, and the codes that prove them. */
import { call } from "../api";
import { configs } from "../configs";
import { country, t, time } from "../i18n";
import { loadMe, useMe, type Phone } from "../me";
import { Action, Field, Form } from "../ui/form";
import { useLoad } from "../ui/load";
import { tell } from "../ui/notice";

export function Phones() {
  const me = useMe();
  const ways = useLoad(configs);
  if (!me) return null;
  const open = me.phones.filter((p) => !p.validated_at);
  const done = me.phones.filter((p) => p.validated_at);
  const calls = ways.value?.phone_verification_type === "twilio_verify";
  const channel = calls && (
    <Field name="channel" label={t("field.channel")} options={[{ value: "sms", label: t("channel.sms") }, { value: "call", label: t("channel.call") }]} />
  );
  return (
    <>
      {done.length > 0 && (
        <section aria-labelledby="verified">
          <h2 id="verified">{t("phones.verified")}</h2>
          <ul class="rows">
            {done.map((p) => (
              <li key={p.number}>
                <strong>+{p.number}</strong> <span class="muted">{country(p.country)}</span>
                <span class="badge good">{t("phones.since", { time: time(p.validated_at!) })}</span>
              </li>
            ))}
          </ul>
        </section>
      )}
      {open.map((p) => <Verify key={p.number} of={p} />)}
      <section aria-labelledby="add">
        <h2 id="add">{t("phones.add")}</h2>
        <Form action={t("phones.send")} clears
          send={async (values) => {
            await call("POST", "/resource/phones", values);
            await loadMe();
            tell(t("phones.sent"));
          }}>
          <Field name="phone_number" type="tel" label={t("field.phone_number")} hint={t("phones.hint")} required autocomplete="tel" />
          {channel}
        </Form>
      </section>
    </>
  );
}

function Verify({ of }: { of: Phone }) {
  const number = "+" + of.number;
  return (
    <section aria-labelledby={"verify" + of.number}>
      <h2 id={"verify" + of.number}>{t("phones.verify", { number })}</h2>
      <p>{t("phones.code.text")}</p>
      <Form action={t("phones.confirm")} label={t("phones.verify", { number })}
        aside={
          <Action quiet label={t("phones.again")} hidden={number}
            run={async () => {
              tell("");
              await call("POST", "/resource/phones/send_code", { phone_number: number });
              tell(t("phones.sent"));
            }} />
        }
        send={async (values) => {
          await call("POST", "/resource/phones/verify", { phone_number: number, ...values });
          await loadMe();
          tell(t("phones.done", { number }));
        }}>
        <Field name="verification_code" label={t("field.verification_code")} required autocomplete="one-time-code" inputMode="numeric" spellcheck={false} />
      </Form>
    </section>
  );
}

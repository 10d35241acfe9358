/** /accounts/profile: who one is, as a draft, submitted, and as it was judged. */
import { useState } from "preact/hooks";
import { call } from "../api";
import { countries } from "../countries";
import { country, day, language, say, t } from "../i18n";
import { loadMe, useMe, type Profile } from "../me";
import { Check, Field, Form } from "../ui/form";
import { tell } from "../ui/notice";

export function ProfilePage() {
  const me = useMe();
  const [anew, setAnew] = useState(false);
  if (!me) return null;
  const draft = me.profiles.find((p) => p.state === "drafted");
  const open = me.profiles.some((p) => p.state === "submitted");
  const last = me.profiles.at(-1);
  const edits = !open && (draft || !last || last.state === "rejected" || anew);
  return (
    <>
      {last && last.state !== "drafted" && <Shown of={last} />}
      {last?.state === "submitted" && <p>{t("profile.submitted.text")}</p>}
      {last?.state === "rejected" && <p>{t("profile.rejected.text")}</p>}
      {edits && <Edit key={draft ? "draft" : "new"} of={draft} start={draft ?? (last?.state === "rejected" ? last : undefined)} />}
      {!edits && !open && (
        <p class="actions">
          <button type="button" onClick={() => setAnew(true)}>{t("profile.anew")}</button>
        </p>
      )}
    </>
  );
}

function Shown({ of }: { of: Profile }) {
  const rows: [string, string | null][] = [
    [t("field.first_name"), of.first_name],
    [t("field.last_name"), of.last_name],
    [t("field.dob"), of.dob && day(of.dob)],
    [t("field.address"), of.address],
    [t("field.postcode"), of.postcode],
    [t("field.city"), of.city],
    [t("field.country"), of.country && (of.country.length === 2 ? country(of.country) : of.country)],
  ];
  return (
    <section aria-labelledby="shown">
      <h2 id="shown">
        {t("profile.shown")} <span class={"badge " + (of.state === "verified" ? "good" : of.state === "rejected" ? "bad" : "")}>{say("label." + of.state)}</span>
      </h2>
      <dl class="facts">
        {rows.map(([name, value]) => value && <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}
      </dl>
    </section>
  );
}

function Edit({ of, start }: { of: Profile | undefined; start: Profile | undefined }) {
  const [confirms, setConfirms] = useState(false);
  const send = async (values: Record<string, string>) => {
    const { confirm, ...rest } = values;
    await call(of ? "PUT" : "POST", "/resource/profiles", { ...rest, ...(confirm ? { confirm: true } : {}) });
    await loadMe();
    tell(t(confirm ? "profile.submitted" : "profile.saved"));
  };
  const known = countries(language().tag);
  const chosen = start?.country?.toUpperCase() ?? "";
  const options = [{ value: "", label: t("choose") }, ...(chosen === "" || known.some((c) => c.value === chosen) ? [] : [{ value: chosen, label: chosen }]), ...known];
  return (
    <section aria-labelledby="edit">
      <h2 id="edit">{t(of ? "profile.draft" : "profile.new")}</h2>
      <p class="muted">{t("profile.text")}</p>
      <Form action={t(confirms ? "profile.submit" : "profile.save")} send={send} class="grid">
        <Field name="first_name" label={t("field.first_name")} value={start?.first_name} autocomplete="given-name" maxLength={255} />
        <Field name="last_name" label={t("field.last_name")} value={start?.last_name} autocomplete="family-name" maxLength={255} />
        <Field name="dob" type="date" label={t("field.dob")} value={start?.dob} autocomplete="bday" max={new Date().toISOString().slice(0, 10)} />
        <Field name="country" label={t("field.country")} value={chosen} autocomplete="country" options={options} />
        <Field name="city" label={t("field.city")} value={start?.city} autocomplete="address-level2" maxLength={255} />
        <Field name="postcode" label={t("field.postcode")} value={start?.postcode} autocomplete="postal-code" maxLength={255} />
        <Field name="address" label={t("field.address")} value={start?.address} autocomplete="street-address" maxLength={255} />
        <Check name="confirm" label={t("profile.confirm")} hint={t("profile.confirm.hint")} onInput={setConfirms} />
      </Form>
    </section>
  );
}

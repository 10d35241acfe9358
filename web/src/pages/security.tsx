/** /accounts/security: password, second factor, passkeys and linked providers. */
import { useEffect, useState } from "preact/hooks";
import { call } from "../api";
import { config } from "../config";
import { told } from "../faults";
import { language, t, time } from "../i18n";
import { loadMe, useMe } from "../me";
import { addPasskey, hasPasskeys } from "../passkey";
import { providers } from "../providers";
import type { PageProps } from "../router";
import { Copy } from "../ui/copy";
import { Action, Alert, CodeField, Field, Form } from "../ui/form";
import { Show, useLoad } from "../ui/load";
import { NewPassword } from "../ui/newpassword";
import { tell } from "../ui/notice";
import { Proof } from "../ui/proof";

export function Security({ query }: PageProps) {
  useEffect(() => {
    if (location.hash) document.querySelector(location.hash)?.scrollIntoView();
  }, []);
  return (
    <>
      <Alert faults={told(query)} />
      <TwoFactor />
      {config.passkeys && <Passkeys />}
      <Providers />
      <Password />
    </>
  );
}

function Password() {
  return (
    <section aria-labelledby="password">
      <h2 id="password">{t("security.password")}</h2>
      <p class="muted">{t("security.password.text")}</p>
      <Form action={t("security.password.action")} clears
        send={async (values) => {
          await call("PUT", "/resource/users/password", { ...values, lang: language().tag });
          tell(t("security.password.done"));
          window.scrollTo(0, 0);
        }}>
        <Field name="old_password" type="password" label={t("field.old_password")} required autocomplete="current-password" />
        <NewPassword name="new_password" label={t("field.new_password")} />
        <Field name="confirm_password" type="password" label={t("field.confirm_password")} required autocomplete="new-password" />
      </Form>
    </section>
  );
}

interface Begun {
  barcode: string;
  url: string;
}

function TwoFactor() {
  const me = useMe();
  const [begun, setBegun] = useState<Begun>();
  const [codes, setCodes] = useState<string[]>();
  const [doing, setDoing] = useState<"off" | "codes">();
  if (!me) return null;

  const begin = async () => setBegun((await call<{ data: Begun }>("POST", "/resource/otp/generate_qrcode")).data);
  const enable = async (values: Record<string, string>) => {
    const answer = await call<{ codes?: string[] } | number>("POST", "/resource/otp/enable", { ...values, recovery_codes: true });
    setBegun(undefined);
    if (typeof answer === "object") setCodes(answer.codes);
    await loadMe();
    tell(t("otp.on.done"));
  };
  const disable = async (values: Record<string, string>) => {
    await call("POST", "/resource/otp/disable", values);
    setDoing(undefined);
    setCodes(undefined);
    await loadMe();
    tell(t("otp.off.done"));
  };
  const renew = async (values: Record<string, string>) => {
    setCodes((await call<{ codes: string[] }>("POST", "/resource/otp/recovery_codes", values)).codes);
    setDoing(undefined);
  };
  const cancel = <button type="button" class="quiet" onClick={() => (setBegun(undefined), setDoing(undefined))}>{t("cancel")}</button>;

  return (
    <section aria-labelledby="otp">
      <h2 id="otp">
        {t("otp.title")} <span class={"badge " + (me.otp ? "good" : "")}>{t(me.otp ? "on" : "off")}</span>
      </h2>
      <p class="muted">{t("otp.text")}</p>
      {!me.otp && !begun && <p class="actions"><Action label={t("otp.begin")} run={begin} /></p>}
      {!me.otp && begun && (
        <Form action={t("otp.enable")} send={enable} aside={cancel} label={t("otp.enable")}>
          <ol class="steps">
            <li>
              {t("otp.scan")}
              <img class="qr" src={"data:image/png;base64," + begun.barcode} width={240} height={240} alt={t("otp.qr")} />
              <Copy label={t("otp.key")} text={(new URL(begun.url).searchParams.get("secret") ?? "").replace(/(.{4})(?=.)/g, "$1 ")} />
              <p class="hint">
                <a href={begun.url}>{t("otp.app")}</a>
              </p>
            </li>
            <li>{t("otp.type")}</li>
          </ol>
          <CodeField name="code" />
        </Form>
      )}
      {codes && <RecoveryCodes codes={codes} close={() => setCodes(undefined)} />}
      {me.otp && !doing && (
        <p class="actions">
          <button type="button" onClick={() => setDoing("codes")}>{t("otp.codes.new")}</button>
          <button type="button" onClick={() => setDoing("off")}>{t("otp.disable")}</button>
        </p>
      )}
      {me.otp && doing === "codes" && (
        <Form key="codes" action={t("otp.codes.action")} send={renew} aside={cancel} label={t("otp.codes.new")}>
          <p>{t("otp.codes.text")}</p>
          <CodeField name="code" autofocus />
        </Form>
      )}
      {me.otp && doing === "off" && (
        <Form key="off" action={t("otp.disable")} danger send={disable} aside={cancel} label={t("otp.disable")}>
          <p>{t("otp.disable.text")}</p>
          <CodeField name="code" autofocus />
        </Form>
      )}
    </section>
  );
}

function RecoveryCodes({ codes, close }: { codes: string[]; close: () => void }) {
  const text = codes.join("\n") + "\n";
  return (
    <div class="keep" role="group" aria-labelledby="codes">
      <h3 id="codes">{t("otp.codes.title")}</h3>
      <p>{t("otp.codes.keep")}</p>
      <ul class="codes">{codes.map((c) => <li key={c}><code>{c}</code></li>)}</ul>
      <p class="actions">
        <a class="button" download={`${config.name}-recovery-codes.txt`} href={URL.createObjectURL(new Blob([text], { type: "text/plain" }))}>{t("otp.codes.download")}</a>
        {navigator.clipboard && <Action label={t("copy")} hidden={t("otp.codes.title")} run={() => navigator.clipboard.writeText(text).then(() => tell(t("copied")))} />}
        <button type="button" class="primary" onClick={close}>{t("otp.codes.kept")}</button>
      </p>
    </div>
  );
}

interface Passkey {
  id: number;
  name: string;
  created_at: string;
  last_used_at: string | null;
  backed_up: boolean;
}

function Passkeys() {
  const list = useLoad(() => call<Passkey[]>("GET", "/resource/passkeys"));
  const [doing, setDoing] = useState<{ what: "add" } | { what: "rename" | "remove"; id: number }>();
  const done = async (text: string) => {
    setDoing(undefined);
    await list.again();
    tell(text);
  };
  const cancel = <button type="button" class="quiet" onClick={() => setDoing(undefined)}>{t("cancel")}</button>;
  return (
    <section aria-labelledby="passkeys">
      <h2 id="passkeys">{t("passkeys.title")}</h2>
      <p class="muted">{t("passkeys.text")}</p>
      <Show of={list}>
        {(rows) => (
          <ul class="rows">
            {rows.map((p) => (
              <li key={p.id}>
                <strong>{p.name}</strong>
                <span class="muted">
                  {t("passkeys.made", { time: time(p.created_at) })}{p.last_used_at && ", " + t("passkeys.used", { time: time(p.last_used_at) })}
                </span>
                <span class="actions">
                  <button type="button" class="quiet" onClick={() => setDoing({ what: "rename", id: p.id })}>{t("rename")}<span class="hidden"> {p.name}</span></button>
                  <button type="button" class="quiet" onClick={() => setDoing({ what: "remove", id: p.id })}>{t("remove")}<span class="hidden"> {p.name}</span></button>
                </span>
                {doing?.what === "rename" && doing.id === p.id && (
                  <Form action={t("rename")} aside={cancel} label={t("passkeys.rename", { name: p.name })}
                    send={async (v) => {
                      await call("PATCH", `/resource/passkeys/${p.id}`, v);
                      await done(t("passkeys.renamed"));
                    }}>
                    <Field name="name" label={t("field.passkey_name")} value={p.name} required maxLength={64} autofocus />
                  </Form>
                )}
                {doing?.what === "remove" && doing.id === p.id && (
                  <Form action={t("remove")} danger aside={cancel} label={t("passkeys.remove", { name: p.name })}
                    send={async (v) => {
                      await call("DELETE", `/resource/passkeys/${p.id}`, v);
                      await done(t("passkeys.removed"));
                    }}>
                    <p>{t("passkeys.remove.text", { name: p.name })}</p>
                    <Proof />
                  </Form>
                )}
              </li>
            ))}
          </ul>
        )}
      </Show>
      {!hasPasskeys() && <p>{t("passkeys.lacking")}</p>}
      {hasPasskeys() && doing?.what !== "add" && (
        <p class="actions"><button type="button" onClick={() => setDoing({ what: "add" })}>{t("passkeys.add")}</button></p>
      )}
      {doing?.what === "add" && (
        <Form action={t("passkeys.create")} aside={cancel} label={t("passkeys.add")}
          send={async ({ name, ...proof }) => {
            await addPasskey(name ?? "", proof);
            await done(t("passkeys.added"));
          }}>
          <Field name="name" label={t("field.passkey_name")} hint={t("passkeys.name.hint")} required maxLength={64} autofocus />
          <Proof />
        </Form>
      )}
    </section>
  );
}

interface Linked {
  id: string;
  name: string;
  email: string | null;
  created_at: string;
  last_used_at: string | null;
}

function Providers() {
  const list = useLoad(async () => {
    const all = await providers();
    return { all, linked: all.length > 0 ? await call<Linked[]>("GET", "/resource/providers") : [] };
  });
  // Without providers there is nothing to say; one that was taken off the list stays linked, and is shown with the others.
  if (list.value && list.value.all.length === 0) return null;
  return (
    <section aria-labelledby="providers">
      <h2 id="providers">{t("providers.title")}</h2>
      <p class="muted">{t("providers.text")}</p>
      <Show of={list}>
        {({ all, linked }) => (
          <ul class="rows">
            {linked.map((p) => (
              <li key={p.id}>
                <strong>{p.name}</strong> {p.email && <span>{p.email}</span>}
                <span class="muted">{t("providers.since", { time: time(p.created_at) })}</span>
                <Action quiet label={t("providers.unlink")} hidden={p.name}
                  run={async () => {
                    await call("DELETE", `/resource/providers/${encodeURIComponent(p.id)}`);
                    await list.again();
                    tell(t("providers.unlinked", { name: p.name }));
                  }} />
              </li>
            ))}
            {all.filter((p) => !linked.some((l) => l.id === p.id)).map((p) => (
              <li key={p.id}>
                <strong>{p.name}</strong>
                <Action label={t("providers.link")} hidden={p.name}
                  run={async () => {
                    const { location: to } = await call<{ location: string }>("POST", `/resource/providers/${encodeURIComponent(p.id)}/start`, { rd: "/accounts/security" });
                    location.assign(to);
                  }} />
              </li>
            ))}
          </ul>
        )}
      </Show>
    </section>
  );
}

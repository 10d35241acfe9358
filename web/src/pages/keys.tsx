/** /accounts/keys: keys with which programs call on one's behalf. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { call, page } from "../api";
import { config } from "../config";
import { joined, t, time } from "../i18n";
import { useMe } from "../me";
import type { PageProps } from "../router";
import { Copy } from "../ui/copy";
import { CodeField, Field, Form } from "../ui/form";
import { Show, useLoad } from "../ui/load";
import { tell } from "../ui/notice";
import { Empty, pageOf, Pager } from "../ui/pager";

interface Key {
  kid: string;
  algorithm: string;
  scope: string[];
  state: string;
  /** An object around it under BARONG_COMPAT=2.4.17. */
  secret?: string | { data: { value: string } } | null;
  created_at: string;
}

const size = 25;

const secretOf = (k: Key): string | undefined => (typeof k.secret === "object" ? k.secret?.data.value : k.secret);

export function Keys({ query }: PageProps) {
  const me = useMe();
  const number = pageOf(query);
  const list = useLoad(() => page<Key>("/resource/api_keys", { page: number, limit: size }), [number]);
  const [made, setMade] = useState<Key>();
  const [doing, setDoing] = useState<{ what: "switch" | "delete"; kid: string } | { what: "make" }>();
  if (!me) return null;
  const cancel = <button type="button" class="quiet" onClick={() => setDoing(undefined)}>{t("cancel")}</button>;
  const done = async (text: string) => {
    setDoing(undefined);
    await list.again();
    tell(text);
  };
  return (
    <>
      <p class="muted">{t("keys.text")}</p>
      {made && <Made of={made} close={() => setMade(undefined)} />}
      {!me.otp && (
        <p class="callout">
          {t("keys.otp")} <a href="/accounts/security">{t("keys.otp.link")}</a>
        </p>
      )}
      {me.otp && doing?.what !== "make" && (
        <p class="actions"><button type="button" class="primary" onClick={() => (setMade(undefined), setDoing({ what: "make" }))}>{t("keys.make")}</button></p>
      )}
      {me.otp && doing?.what === "make" && (
        <section aria-labelledby="make">
          <h2 id="make">{t("keys.make")}</h2>
          <Make cancel={cancel} made={async (key) => {
            setMade(key);
            await done(t("keys.made.done"));
          }} />
        </section>
      )}
      <Show of={list}>
        {(p) =>
          p.rows.length === 0 ? (
            <Empty page={number} none={t("keys.none")} />
          ) : (
            <>
              <ul class="rows">
                {p.rows.map((k) => (
                  <li key={k.kid}>
                    <strong><code>{k.kid}</code></strong>
                    <span class={"badge " + (k.state === "active" ? "good" : "")}>{t(k.state === "active" ? "keys.active" : "keys.inactive")}</span>
                    <span class="muted">{joined(k.algorithm, k.scope.join(", "), time(k.created_at))}</span>
                    {me.otp && (
                      <span class="actions">
                        <button type="button" class="quiet" onClick={() => setDoing({ what: "switch", kid: k.kid })}>
                          {t(k.state === "active" ? "keys.off" : "keys.on")}<span class="hidden"> {k.kid}</span>
                        </button>
                        <button type="button" class="quiet" onClick={() => setDoing({ what: "delete", kid: k.kid })}>{t("remove")}<span class="hidden"> {k.kid}</span></button>
                      </span>
                    )}
                    {doing?.what === "switch" && doing.kid === k.kid && (
                      <Form key="switch" action={t(k.state === "active" ? "keys.off" : "keys.on")} aside={cancel} label={t(k.state === "active" ? "keys.off" : "keys.on") + " " + k.kid}
                        send={async (v) => {
                          await call("PATCH", `/resource/api_keys/${k.kid}`, { ...v, state: k.state === "active" ? "inactive" : "active" });
                          await done(t(k.state === "active" ? "keys.off.done" : "keys.on.done"));
                        }}>
                        <CodeField name="totp_code" autofocus />
                      </Form>
                    )}
                    {doing?.what === "delete" && doing.kid === k.kid && (
                      <Form key="delete" action={t("remove")} danger aside={cancel} label={t("remove") + " " + k.kid}
                        send={async (v) => {
                          await call("DELETE", `/resource/api_keys/${k.kid}`, v);
                          await done(t("keys.removed"));
                        }}>
                        <p>{t("keys.remove.text")}</p>
                        <CodeField name="totp_code" autofocus />
                      </Form>
                    )}
                  </li>
                ))}
              </ul>
              <Pager page={p.page} perPage={p.perPage} total={p.total} />
            </>
          )
        }
      </Show>
    </>
  );
}

function Make({ made, cancel }: { made: (key: Key) => Promise<void>; cancel: ComponentChildren }) {
  const [algorithm, setAlgorithm] = useState("HS256");
  const send = async ({ scope, ...values }: Record<string, string>) =>
    made(await call<Key>("POST", "/resource/api_keys", { ...values, ...(scope ? { scope } : {}) }));
  return (
    <Form action={t("keys.make")} send={send} aside={cancel} label={t("keys.make")}>
      <Field name="algorithm" label={t("field.algorithm")} value={algorithm} onInput={setAlgorithm} hint={t(algorithm === "HS256" ? "keys.hs256" : "keys.ed25519")}
        options={[{ value: "HS256", label: "HS256" }, { value: "Ed25519", label: "Ed25519" }]} />
      {algorithm === "Ed25519" && <Field name="public_key" label={t("field.public_key")} hint={<>{t("keys.public_key.hint")} <code>openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout</code></>} rows={4} required spellcheck={false} />}
      <Field name="scope" label={t("field.scope")} hint={t("keys.scope.hint")} spellcheck={false} />
      <CodeField name="totp_code" label={t("field.totp_code")} />
    </Form>
  );
}

const path = () => config.api + "/resource/users/me";

/** A call that is signed by a nonce. */
const byNonce = (kid: string, secret: string): string =>
  `N=$(date +%s%3N); curl -H "X-Auth-Apikey: ${kid}" -H "X-Auth-Nonce: $N" -H "X-Auth-Signature: $(printf %s "$N"${kid} | openssl dgst -sha256 -hmac ${secret} -r | cut -d' ' -f1)" ${location.origin}${path()}`;

/** A call that is signed whole, by the private key in key.pem. */
const byKeyPair = (kid: string): string =>
  `P="(\\"@method\\" \\"@path\\" \\"@query\\");created=$(date +%s);keyid=\\"${kid}\\";nonce=\\"$(openssl rand -hex 16)\\""; ` +
  `printf '"@method": GET\\n"@path": ${path()}\\n"@query": ?\\n"@signature-params": %s' "$P" > base; ` +
  `curl -H "Signature-Input: barong=$P" -H "Signature: barong=:$(openssl pkeyutl -sign -inkey key.pem -rawin -in base | base64 -w0):" ${location.origin}${path()}`;

function Made({ of, close }: { of: Key; close: () => void }) {
  const secret = secretOf(of);
  return (
    <section class="keep" aria-labelledby="made">
      <h2 id="made">{t("keys.made")}</h2>
      <Copy label={t("keys.kid")} text={of.kid} />
      {secret && (
        <>
          <p><strong>{t("keys.once")}</strong></p>
          <Copy label={t("keys.secret")} text={secret} />
        </>
      )}
      <Copy block label={t("keys.curl")} text={secret ? byNonce(of.kid, secret) : byKeyPair(of.kid)} />
      <p class="actions"><button type="button" class="primary" onClick={close}>{t(secret ? "keys.kept" : "close")}</button></p>
    </section>
  );
}

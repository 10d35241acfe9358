/** /console/users/{uid}: all there is to know about somebody, and what may be done. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { call, page } from "../api";
import { ago, country, joined, t, time } from "../i18n";
import { State } from "../pages/overview";
import type { PageProps } from "../router";
import { Field, Form } from "../ui/form";
import { Show, useLoad } from "../ui/load";
import { can } from "./abilities";
import { changed, Changes, Confirm, useChanges } from "./changes";
import { Papers, type Document } from "./papers";
import { Table } from "../ui/table";
import { states, type User } from "./users";
import { deed, named, w } from "./words";

interface Label {
  key: string;
  value: string;
  scope: "public" | "private";
  description: string | null;
  updated_at: string;
}
interface Phone { country: string; number: string; validated_at: string | null }
interface Storage { title: string; data: string; updated_at: string }
export interface Profile {
  first_name: string | null; last_name: string | null; dob: string | null; address: string | null; postcode: string | null;
  city: string | null; country: string | null; state: string; metadata: unknown; updated_at: string;
}
export interface Whole extends User {
  data: string | null;
  profiles: Profile[];
  labels: Label[];
  phones: Phone[];
  documents: Document[];
  data_storages: Storage[];
  referral_uid: string | null;
  created_at: string;
  updated_at: string;
}

export function UserPage({ params }: PageProps) {
  const uid = params["uid"]!;
  const user = useLoad(() => call<Whole>("GET", "/admin/users/" + encodeURIComponent(uid)), [uid]);
  useChanges(() => void user.again());
  return (
    <>
      <Changes />
      <Show of={user}>
        {(u) => (
          <>
            <Account of={u} />
            <Labels of={u} />
            <Profiles of={u} />
            <Part id="phones" title={w("c.phones")} none={u.phones.length === 0 ? w("c.phones.none") : undefined}>
              <ul class="rows">
                {u.phones.map((p) => (
                  <li key={p.number}>
                    <strong>+{p.number}</strong> <span class="muted">{country(p.country)}</span>
                    <span class={"badge " + (p.validated_at ? "good" : "")}>{w(p.validated_at ? "c.verified" : "c.unverified")}</span>
                  </li>
                ))}
              </ul>
            </Part>
            <Part id="documents" title={w("c.papers")} none={u.documents.length === 0 ? w("c.papers.none") : undefined}>
              <Papers of={u.documents} />
            </Part>
            {can("GET /admin/users/{uid}/sessions") && <Sessions of={u} />}
            {can("GET /admin/api_keys") && <Keys of={u} />}
            {u.data_storages.length > 0 && <Storages of={u} />}
            {can("GET /admin/activities") && <History of={u} />}
          </>
        )}
      </Show>
    </>
  );
}

function Part({ id, title, none, children }: { id: string; title: string; none?: string | undefined; children: ComponentChildren }) {
  return (
    <section aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      {none ? <p class="muted">{none}</p> : children}
    </section>
  );
}

const setState = (uid: string, state: string) => call("PUT", "/admin/users", { uid, state });
const setRole = (uid: string, role: string) => call("POST", "/admin/users/role", { uid, role });

function Account({ of: u }: { of: Whole }) {
  const mayEdit = can("PUT /admin/users");
  return (
    <Part id="account" title={u.email}>
      <dl class="facts">
        <div><dt>{w("c.uid")}</dt><dd><code>{u.uid}</code></dd></div>
        <div><dt>{w("c.role")}</dt><dd>{u.role}</dd></div>
        <div><dt>{w("c.state")}</dt><dd><State of={u.state} /></dd></div>
        <div><dt>{w("c.level")}</dt><dd>{u.level}</dd></div>
        <div><dt>{w("c.otp")}</dt><dd>{u.otp ? w("c.yes") : w("c.no")}</dd></div>
        <div><dt>{w("c.created")}</dt><dd>{time(u.created_at)}</dd></div>
        <div><dt>{w("c.updated")}</dt><dd>{time(u.updated_at)}</dd></div>
        {u.referral_uid && <div><dt>{w("c.referral")}</dt><dd><a href={"/console/users/" + encodeURIComponent(u.referral_uid)}>{u.referral_uid}</a></dd></div>}
      </dl>
      <div class="side">
        {mayEdit && (
          <Form key={"state" + u.state} action={w("c.state.set")} label={w("c.state.set")} send={async ({ state = "" }) => {
            await setState(u.uid, state);
            await changed({ what: w("c.state.of", { email: u.email }), before: named("state", u.state), after: named("state", state), undo: () => setState(u.uid, u.state) });
          }}>
            <Field name="state" label={w("c.state")} value={u.state} hint={w("c.state.hint")}
              options={[...new Set([...states, u.state])].map((s) => ({ value: s, label: named("state", s) }))} />
          </Form>
        )}
        {can("POST /admin/users/role") && (
          <Form key={"role" + u.role} action={w("c.role.set")} label={w("c.role.set")} send={async ({ role = "" }) => {
            await setRole(u.uid, role);
            await changed({ what: w("c.role.of", { email: u.email }), before: u.role, after: role, undo: () => setRole(u.uid, u.role) });
          }}>
            <Field name="role" label={w("c.role")} value={u.role} hint={w("c.role.hint")} required spellcheck={false} />
          </Form>
        )}
      </div>
      {mayEdit && u.otp && (
        <p>
          <Confirm label={w("c.otp.off")} text={w("c.otp.off.text")} run={async () => {
            await call("PUT", "/admin/users", { uid: u.uid, otp: false });
            await changed({ what: w("c.otp.of", { email: u.email }), before: w("c.on"), after: w("c.off") });
          }} />
        </p>
      )}
    </Part>
  );
}

const addLabel = (uid: string, l: Pick<Label, "key" | "value" | "scope" | "description">) =>
  call("POST", "/admin/users/labels", { uid, key: l.key, value: l.value, scope: l.scope, ...(l.description ? { description: l.description } : {}) });
const setLabel = (uid: string, l: Pick<Label, "key" | "scope">, value: string) => call("PUT", "/admin/users/labels", { uid, key: l.key, scope: l.scope, value });
const removeLabel = (uid: string, l: Pick<Label, "key" | "scope">) => call("DELETE", "/admin/users/labels" + "?" + new URLSearchParams({ uid, key: l.key, scope: l.scope }));

function Labels({ of: u }: { of: Whole }) {
  const [edited, edit] = useState("");
  const what = (l: Pick<Label, "key" | "scope">) => w("c.label.of", { key: l.key, scope: named("c.scope", l.scope), email: u.email });
  return (
    <Part id="labels" title={w("c.labels")}>
      {u.labels.length === 0 && <p class="muted">{w("c.labels.none")}</p>}
      <ul class="rows">
        {u.labels.map((l) => {
          const id = l.scope + ":" + l.key;
          return (
            <li key={id}>
              <strong>{l.key}</strong> <span>{l.value}</span> <span class="badge">{named("c.scope", l.scope)}</span>
              <span class="muted">{joined(l.description, time(l.updated_at))}</span>
              {edited === id ? (
                <Form action={w("c.save")} label={what(l)} aside={<button type="button" class="quiet" onClick={() => edit("")}>{t("cancel")}</button>}
                  send={async ({ value = "" }) => {
                    await setLabel(u.uid, l, value);
                    edit("");
                    await changed({ what: what(l), before: l.value, after: value, undo: () => setLabel(u.uid, l, l.value) });
                  }}>
                  <Field name="value" label={w("c.label.value")} value={l.value} required spellcheck={false} autofocus />
                </Form>
              ) : (
                <span class="actions">
                  {can("PUT /admin/users/labels") && <button type="button" class="quiet" onClick={() => edit(id)}>{w("c.edit")}<span class="hidden"> {l.key}</span></button>}
                  {can("DELETE /admin/users/labels") && (
                    <Confirm label={t("remove")} hidden={l.key} text={w("c.label.remove", { key: l.key })} run={async () => {
                      await removeLabel(u.uid, l);
                      await changed({ what: what(l), before: l.value, after: w("c.gone"), ...(can("POST /admin/users/labels") ? { undo: () => addLabel(u.uid, l) } : {}) });
                    }} />
                  )}
                </span>
              )}
            </li>
          );
        })}
      </ul>
      {can("POST /admin/users/labels") && (
        <details>
          <summary>{w("c.label.add")}</summary>
          <Form action={w("c.label.add")} label={w("c.label.add")} clears class="grid" send={async ({ key = "", value = "", scope = "private", description = "" }) => {
            const l = { key, value, scope: scope as Label["scope"], description };
            await addLabel(u.uid, l);
            await changed({ what: what(l), before: w("c.gone"), after: value, ...(can("DELETE /admin/users/labels") ? { undo: () => removeLabel(u.uid, l) } : {}) });
          }}>
            <Field name="key" label={w("c.label.key")} required spellcheck={false} />
            <Field name="value" label={w("c.label.value")} required spellcheck={false} />
            <Field name="scope" label={w("c.label.scope")} value="private" hint={w("c.label.scope.hint")} options={(["private", "public"] as const).map((s) => ({ value: s, label: named("c.scope", s) }))} />
            <Field name="description" label={w("c.label.description")} />
          </Form>
        </details>
      )}
    </Part>
  );
}

export const profileFields = ["first_name", "last_name", "dob", "address", "postcode", "city", "country"] as const;
const profileStates = ["drafted", "submitted", "verified", "rejected"] as const;

/** What a person says of themselves, as it stands. */
export const ProfileFacts = ({ of: p }: { of: Profile }) => (
  <dl class="facts">
    {profileFields.map((f) => p[f] && (
      <div key={f}><dt>{w(`c.${f}`)}</dt><dd>{f === "country" ? country(p[f]!) : p[f]}</dd></div>
    ))}
    <div><dt>{w("c.state")}</dt><dd><span class={"badge " + (p.state === "verified" ? "good" : p.state === "rejected" ? "bad" : "")}>{named("c.profile", p.state)}</span></dd></div>
  </dl>
);

function Profiles({ of: u }: { of: Whole }) {
  const p = u.profiles.at(-1);
  const what = w("c.profile.of", { email: u.email });
  const put = (values: Record<string, string>) => call("PUT", "/admin/profiles", { uid: u.uid, ...values });
  return (
    <Part id="profile" title={w("c.profile")} none={p ? undefined : w("c.profile.none")}>
      {p && (
        <>
          <ProfileFacts of={p} />
          {can("PUT /admin/profiles") && (
            <details>
              <summary>{w("c.profile.edit")}</summary>
              <Form key={p.updated_at} action={w("c.save")} label={w("c.profile.edit")} class="grid" send={async (values) => {
                const fields = [...profileFields, "state"] as const;
                const turned = fields.filter((f) => (values[f] ?? "") !== (p[f] ?? "") && values[f]);
                if (turned.length === 0) return;
                const pick = (of: Record<string, string | null | undefined>) => Object.fromEntries(turned.map((f) => [f, of[f] ?? ""]));
                const before = pick(p as never), after = pick(values);
                await put(after);
                const text = (v: Record<string, string>) => turned.map((f) => `${w(f === "state" ? "c.state" : `c.${f}`)}: ${v[f] || "–"}`).join(", ");
                await changed({ what, before: text(before), after: text(after), ...(Object.values(before).every(Boolean) ? { undo: () => put(before) } : {}) });
              }}>
                {profileFields.map((f) => (
                  <Field key={f} name={f} label={w(`c.${f}`)} value={p[f]} type={f === "dob" ? "date" : "text"} spellcheck={false} />
                ))}
                <Field name="state" label={w("c.state")} value={p.state} options={profileStates.map((s) => ({ value: s, label: named("c.profile", s) }))} />
              </Form>
            </details>
          )}
        </>
      )}
    </Part>
  );
}

interface Session { id: string; user_ip: string; country: string; device: string; amr: string[]; created_at: string; seen_at: string; current: boolean }

function Sessions({ of: u }: { of: Whole }) {
  const path = `/admin/users/${encodeURIComponent(u.uid)}/sessions`;
  const list = useLoad(() => call<Session[]>("GET", path), [path]);
  useChanges(() => void list.again());
  const end = async (id: string | undefined, shown: string) => {
    await call("DELETE", path + (id ? "/" + encodeURIComponent(id) : ""));
    await changed({ what: w("c.session.of", { email: u.email }), before: shown, after: w("c.ended") });
  };
  return (
    <Part id="sessions" title={w("c.sessions")}>
      <Show of={list}>
        {(rows) =>
          rows.length === 0 ? (
            <p class="muted">{w("c.sessions.none")}</p>
          ) : (
            <>
              <ul class="rows">
                {rows.map((s) => (
                  <li key={s.id}>
                    <strong>{s.device || w("c.device.unknown")}</strong>
                    {s.current && <span class="badge good">{w("c.session.yours")}</span>}
                    <span class="muted">{joined(s.user_ip, s.country && country(s.country), ago(s.seen_at), s.amr.map((m) => named("amr", m)).join(" + "))}</span>
                    {can("DELETE /admin/users/{uid}/sessions/{id}") && (
                      <Confirm label={w("c.session.end")} hidden={s.device || s.user_ip} text={w("c.session.end.text")} run={() => end(s.id, s.device || s.user_ip)} />
                    )}
                  </li>
                ))}
              </ul>
              {can("DELETE /admin/users/{uid}/sessions") && (
                <p class="actions"><Confirm label={w("c.sessions.end")} text={w("c.sessions.end.text")} run={() => end(undefined, w("c.sessions.count", { n: rows.length }))} /></p>
              )}
            </>
          )
        }
      </Show>
    </Part>
  );
}

interface Key { kid: string; algorithm: string; scope: string[]; state: string; created_at: string }

function Keys({ of: u }: { of: Whole }) {
  const list = useLoad(() => page<Key>("/admin/api_keys", { uid: u.uid, limit: 100 }), [u.uid]);
  return (
    <Part id="keys" title={w("c.keys")}>
      <Show of={list}>
        {(p) =>
          p.rows.length === 0 ? (
            <p class="muted">{w("c.keys.none")}</p>
          ) : (
            <ul class="rows">
              {p.rows.map((k) => (
                <li key={k.kid}>
                  <strong><code>{k.kid}</code></strong>
                  <span class={"badge " + (k.state === "active" ? "good" : "")}>{w(k.state === "active" ? "c.key.active" : "c.key.inactive")}</span>
                  <span class="muted">{joined(k.algorithm, k.scope.join(", "), time(k.created_at))}</span>
                </li>
              ))}
            </ul>
          )
        }
      </Show>
    </Part>
  );
}

function Storages({ of: u }: { of: Whole }) {
  return (
    <Part id="storages" title={w("c.storages")}>
      <ul class="rows">
        {u.data_storages.map((s) => (
          <li key={s.title}>
            <strong>{s.title}</strong> <span class="muted">{time(s.updated_at)}</span>
            <details><summary>{w("c.storage.show")}</summary><pre>{s.data}</pre></details>
            {can("DELETE /admin/users/data_storage") && (
              <Confirm label={t("remove")} hidden={s.title} text={w("c.storage.remove")} run={async () => {
                await call("DELETE", "/admin/users/data_storage?" + new URLSearchParams({ uid: u.uid, title: s.title }));
                await changed({ what: w("c.storage.of", { title: s.title, email: u.email }), before: s.data, after: w("c.gone") });
              }} />
            )}
          </li>
        ))}
      </ul>
    </Part>
  );
}

interface Activity { user_ip: string; topic: string; action: string; result: string; created_at: string }

function History({ of: u }: { of: Whole }) {
  const list = useLoad(() => page<Activity>("/admin/activities", { uid: u.uid, limit: 10 }), [u.uid]);
  return (
    <Part id="history" title={w("c.history")}>
      <Show of={list}>
        {(p) =>
          p.rows.length === 0 ? (
            <p class="muted">{w("c.activities.none")}</p>
          ) : (
            <>
              <Table label={w("c.history")} heads={[w("c.when"), w("c.topic"), w("c.action"), w("c.result"), w("c.from.where")]}
                rows={p.rows.map((a, i) => ({
                  key: i,
                  cells: [
                    <time dateTime={a.created_at}>{time(a.created_at)}</time>,
                    a.topic,
                    deed(a.topic, a.action),
                    <span class={"badge " + (a.result === "succeed" ? "good" : "bad")}>{named("result", a.result)}</span>,
                    a.user_ip,
                  ],
                }))} />
              <p><a href={"/console/activities?uid=" + encodeURIComponent(u.uid)}>{w("c.history.all", { n: p.total })}</a></p>
            </>
          )
        }
      </Show>
    </Part>
  );
}


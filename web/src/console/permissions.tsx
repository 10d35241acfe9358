/** /console/permissions: the rules by role, who may do what, drafts that are rehearsed before they are saved, and their history. */
import { useEffect, useState } from "preact/hooks";
import { call, page, Refusal } from "../api";
import { t, time } from "../i18n";
import type { PageProps } from "../router";
import { go } from "../router";
import { Action, Field, Form } from "../ui/form";
import { Show, useLoad } from "../ui/load";
import { tell } from "../ui/notice";
import { withQuery } from "../ui/pager";
import { Table } from "../ui/table";
import { can } from "./abilities";
import { changed, Changes, useChanges } from "./changes";
import { choices, Rows, useList } from "./list";
import { named, w } from "./words";

interface Rule {
  id: number;
  role: string;
  verb: string;
  path: string;
  action: string;
  topic: string | null;
}

interface Edit {
  op: "create" | "update" | "delete";
  id?: number;
  role?: string;
  verb?: string;
  path?: string;
  action?: string;
  topic?: string;
}

const verbs = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "ALL"] as const;
const actions = ["ACCEPT", "DROP", "AUDIT"] as const;
const tabs = ["rules", "who", "draft", "history"] as const;
type Tab = (typeof tabs)[number];

/** The draft is kept for the tab of the browser, so that one can look around before it is saved. */
const store = "barong.draft";
let draft: Edit[] = (() => {
  try {
    return JSON.parse(sessionStorage.getItem(store) ?? "[]") as Edit[];
  } catch {
    return [];
  }
})();
const listeners = new Set<() => void>();
function keep(to: Edit[]): void {
  draft = to;
  try {
    sessionStorage.setItem(store, JSON.stringify(to));
  } catch {
    // Kept until the page is left.
  }
  listeners.forEach((l) => l());
}
function useDraft(): Edit[] {
  const [, draw] = useState(0);
  useEffect(() => {
    const l = () => draw((n) => n + 1);
    listeners.add(l);
    return () => void listeners.delete(l);
  }, []);
  return draft;
}

/** Every rule: there are some hundreds at most, and they are shown by role. */
async function readRules(): Promise<Rule[]> {
  const all: Rule[] = [];
  for (let number = 1; ; number++) {
    const p = await page<Rule>("/admin/permissions", { page: number, limit: 100 });
    all.push(...p.rows);
    if (p.rows.length === 0 || all.length >= p.total) return all;
  }
}

const text = (r: { role?: string; verb?: string; path?: string; action?: string; topic?: string | null }) =>
  `${r.role} ${r.action} ${r.verb} ${r.path}${r.topic ? ` (${r.topic})` : ""}`;

const mayDraft = () => can("POST /admin/permissions/changes");

export function Permissions({ query }: PageProps) {
  const edits = useDraft();
  const offered = tabs.filter((x) => ({ rules: true, who: can("POST /admin/permissions/check"), draft: mayDraft(), history: can("GET /admin/permissions/history") })[x]);
  const tab: Tab = offered.find((x) => x === query.get("tab")) ?? "rules";
  const rules = useLoad(readRules);
  useChanges(() => void rules.again());
  return (
    <>
      <nav class="tabs" aria-label={w("c.permissions")}>
        {offered.map((x) => (
          <a key={x} href={withQuery({ tab: x === "rules" ? undefined : x, page: undefined })} aria-current={x === tab ? "true" : undefined}>
            {w(`c.permissions.${x}`)}
            {x === "draft" && edits.length > 0 && <span class="badge"> {edits.length}</span>}
          </a>
        ))}
      </nav>
      <Changes />
      {tab === "rules" && <Show of={rules}>{(all) => <ByRole rules={all} query={query} />}</Show>}
      {tab === "who" && <WhoMay query={query} />}
      {tab === "draft" && <Show of={rules}>{(all) => <Draft rules={all} />}</Show>}
      {tab === "history" && <History query={query} />}
    </>
  );
}

function ByRole({ rules, query }: { rules: Rule[]; query: URLSearchParams }) {
  const edits = useDraft();
  const roles = [...new Set(rules.map((r) => r.role))].sort();
  const role = query.get("role") ?? "";
  const [edited, edit] = useState<number>();
  const shown = role ? [role] : roles;
  if (rules.length === 0) return <p class="muted">{w("c.permissions.none")}</p>;
  return (
    <>
      <nav class="tabs" aria-label={w("c.permissions.roles")}>
        <a href={withQuery({ role: undefined })} aria-current={role === "" ? "true" : undefined}>{w("c.permissions.all")}</a>
        {roles.map((r) => (
          <a key={r} href={withQuery({ role: r })} aria-current={r === role ? "true" : undefined}>{r}</a>
        ))}
      </nav>
      {mayDraft() && (
        <details>
          <summary>{w("c.permissions.add")}</summary>
          <RuleForm key={role} rule={{ role, verb: "GET", path: "", action: "ACCEPT", topic: null }} label={w("c.permissions.add")} send={(r) => keep([...draft, { op: "create", ...r }])} clears />
        </details>
      )}
      {shown.map((r) => (
        <section key={r} aria-labelledby={"role-" + r}>
          <h2 id={"role-" + r}>{r}</h2>
          {!rules.some((x) => x.role === r) && <p class="muted">{w("c.permissions.none")}</p>}
          <Table label={w("c.permissions.of", { role: r })} heads={[w("c.rule.action"), w("c.rule.verb"), w("c.rule.path"), w("c.topic"), ...(mayDraft() ? [w("c.rule.change")] : [])]}
            rows={rules.filter((x) => x.role === r).map((x) => {
              const pending = edits.find((e) => e.id === x.id);
              const change = pending ? (
                <a href={withQuery({ tab: "draft" })}>{w(`c.draft.${pending.op}`)}</a>
              ) : (
                <span class="actions">
                  <button type="button" class="quiet" aria-expanded={edited === x.id} onClick={() => edit(edited === x.id ? undefined : x.id)}>{w("c.edit")}<span class="hidden"> {text(x)}</span></button>
                  <button type="button" class="quiet" onClick={() => (keep([...draft, { op: "delete", id: x.id }]), tell(w("c.draft.added")))}>{t("remove")}<span class="hidden"> {text(x)}</span></button>
                </span>
              );
              return {
                key: x.id,
                gone: pending?.op === "delete",
                below: edited === x.id && !pending && (
                  <RuleForm rule={x} label={w("c.rule.edit", { rule: text(x) })} cancel={() => edit(undefined)} send={(next) => {
                    const e: Edit = { op: "update", id: x.id };
                    for (const f of ["role", "verb", "path", "action", "topic"] as const) if ((next[f] ?? "") !== (x[f] ?? "")) e[f] = next[f] ?? "";
                    if (Object.keys(e).length > 2) keep([...draft, e]);
                    edit(undefined);
                  }} />
                ),
                cells: [
                  <span class={"badge " + (x.action === "ACCEPT" ? "good" : x.action === "DROP" ? "bad" : "")}>{x.action}</span>,
                  x.verb,
                  <code>{x.path}</code>,
                  x.topic ?? "",
                  ...(mayDraft() ? [change] : []),
                ],
              };
            })} />
        </section>
      ))}
    </>
  );
}

function RuleForm({ rule, label, send, cancel, clears }: { rule: Omit<Rule, "id">; label: string; send: (r: { role: string; verb: string; path: string; action: string; topic?: string }) => void; cancel?: () => void; clears?: boolean }) {
  return (
    <Form action={w("c.draft.add")} label={label} class="grid" {...(clears ? { clears } : {})} aside={cancel && <button type="button" class="quiet" onClick={cancel}>{t("cancel")}</button>}
      send={async ({ role = "", verb = "", path = "", action = "", topic = "" }) => {
        const lacks = Object.entries({ role, path }).flatMap(([name, v]) => (v.trim() ? [] : ["admin.permission.empty_" + name]));
        if (lacks.length > 0) throw new Refusal(422, lacks); // as the API would say when the draft is saved whole
        send({ role: role.trim(), verb, path: path.trim(), action, ...(topic.trim() ? { topic: topic.trim() } : {}) });
        tell(w("c.draft.added"));
      }}>
      <Field name="role" label={w("c.role")} value={rule.role} required spellcheck={false} autofocus={!!cancel} />
      <Field name="action" label={w("c.rule.action")} value={rule.action} hint={w("c.rule.action.hint")} options={actions.map((a) => ({ value: a, label: a }))} />
      <Field name="verb" label={w("c.rule.verb")} value={rule.verb} options={verbs.map((v) => ({ value: v, label: v }))} />
      <Field name="path" label={w("c.rule.path")} value={rule.path} hint={w("c.rule.path.hint")} required spellcheck={false} />
      <Field name="topic" label={w("c.rule.topic")} value={rule.topic} spellcheck={false} />
    </Form>
  );
}

interface Turn { role: string; verb: string; path: string; before: boolean; after: boolean; rule_before?: string; rule_after?: string; count: number; seen: string }

function Draft({ rules }: { rules: Rule[] }) {
  const edits = useDraft();
  const [turns, setTurns] = useState<Turn[]>();
  useEffect(() => setTurns(undefined), [edits]);
  const before = (e: Edit) => rules.find((r) => r.id === e.id);
  const after = (e: Edit): string => (e.op === "delete" ? w("c.gone") : text({ ...before(e), ...e }));
  if (edits.length === 0) return <p class="muted">{w("c.draft.none")}</p>;
  const save = async () => {
    const made = edits;
    const old = made.map(before);
    await call("POST", "/admin/permissions/changes", { changes: made });
    keep([]);
    const one = (list: (string | undefined)[]) => list.map((x) => x ?? w("c.gone")).join("; ");
    const undo = async () => {
      const now = await readRules();
      const changes = made.map((e, i): Edit => {
        const was = old[i];
        if (e.op === "create") {
          const it = now.filter((r) => r.role === e.role && r.verb === e.verb && r.path === e.path && r.action === e.action).at(-1);
          return { op: "delete", id: it?.id ?? 0 };
        }
        const all = { role: was!.role, verb: was!.verb, path: was!.path, action: was!.action, topic: was!.topic ?? "" };
        if (e.op === "update") return { op: "update", id: was!.id, ...all };
        return { op: "create", ...all, ...(was!.topic ? {} : { topic: undefined as never }) };
      });
      await call("POST", "/admin/permissions/changes", { changes: JSON.parse(JSON.stringify(changes.reverse())) as Edit[] });
    };
    await changed({ what: w("c.draft.saved", { n: made.length }), before: one(old.map((r) => r && text(r))), after: one(made.map((e) => after(e))), undo });
    go("/console/permissions");
  };
  return (
    <>
      <ul class="rows">
        {edits.map((e, i) => (
          <li key={i}>
            <strong>{w(`c.draft.${e.op}`)}</strong>
            <span>
              {e.op !== "create" && <><del>{before(e) ? text(before(e)!) : `#${e.id}`}</del> → </>}
              <ins>{after(e)}</ins>
            </span>
            <button type="button" class="quiet" onClick={() => keep(edits.filter((_, j) => j !== i))}>{w("c.draft.drop")}<span class="hidden"> {after(e)}</span></button>
          </li>
        ))}
      </ul>
      <div class="actions">
        {can("POST /admin/permissions/preview") && (
          <Action label={w("c.draft.preview")} run={async () => setTurns(await call<Turn[]>("POST", "/admin/permissions/preview", { changes: edits }))} />
        )}
        <Action label={w("c.draft.save")} run={save} />
        <button type="button" class="quiet" onClick={() => keep([])}>{w("c.draft.clear")}</button>
      </div>
      {turns && (
        <section aria-labelledby="turns">
          <h2 id="turns">{w("c.draft.turns")}</h2>
          <p class="muted" role="status">{turns.length === 0 ? w("c.draft.turns.none") : w("c.draft.turns.text", { n: turns.length })}</p>
          {turns.length > 0 && (
            <Table label={w("c.draft.turns")} heads={[w("c.role"), w("c.rule.verb"), w("c.rule.path"), w("c.draft.before"), w("c.draft.after"), w("c.draft.count"), w("c.when")]}
              rows={turns.map((x, i) => ({
                key: i,
                cells: [
                  x.role,
                  x.verb,
                  <code>{x.path}</code>,
                  <><Verdict allowed={x.before} /> <span class="muted long">{x.rule_before}</span></>,
                  <><Verdict allowed={x.after} /> <span class="muted long">{x.rule_after}</span></>,
                  x.count,
                  <time dateTime={x.seen}>{time(x.seen)}</time>,
                ],
              }))} />
          )}
        </section>
      )}
    </>
  );
}

const Verdict = ({ allowed }: { allowed: boolean }) => <span class={"badge " + (allowed ? "good" : "bad")}>{w(allowed ? "c.allowed" : "c.refused")}</span>;

interface Checked {
  uid?: string; state?: string; role: string; verb: string; path: string; allowed: boolean; block?: string; pass?: string;
  permitted: boolean; audit: boolean; topic?: string; version: number;
  matches: { id?: number; rule?: string; role?: string; verb?: string; path?: string; action?: string; does?: string; decides?: boolean }[];
}

function WhoMay({ query }: { query: URLSearchParams }) {
  const value = (n: string) => query.get(n) ?? "";
  const [by, setBy] = useState<"role" | "uid">(value("uid") ? "uid" : "role");
  const asked = value("path") !== "" && (value("role") !== "" || value("uid") !== "");
  const answer = useLoad<Checked | undefined>(
    async () =>
      asked ? call<Checked>("POST", "/admin/permissions/check", { ...(value("uid") ? { uid: value("uid") } : { role: value("role") }), verb: value("verb") || "GET", path: value("path") }) : undefined,
    [value("uid"), value("role"), value("verb"), value("path")],
  );
  return (
    <>
      <p class="muted">{w("c.who.text")}</p>
      <Form action={w("c.who.ask")} label={w("c.permissions.who")} class="grid" send={async ({ role = "", uid = "", verb = "", path = "" }) => {
        if (!path || !(role || uid)) await call("POST", "/admin/permissions/check", { [by]: role || uid, verb, path }); // refused, in the API's words
        go(withQuery({ role, uid, verb, path }));
      }}>
        <Field name="by" label={w("c.who.by")} value={by} onInput={(x) => setBy(x as "role" | "uid")} options={[{ value: "role", label: w("c.role") }, { value: "uid", label: w("c.uid") }]} />
        {by === "role" ? <Field key="role" name="role" label={w("c.role")} value={value("role")} required spellcheck={false} /> : <Field key="uid" name="uid" label={w("c.uid")} value={value("uid")} required spellcheck={false} />}
        <Field name="verb" label={w("c.rule.verb")} value={value("verb") || "GET"} options={verbs.filter((v) => v !== "ALL").map((v) => ({ value: v, label: v }))} />
        <Field name="path" label={w("c.rule.path")} value={value("path")} hint={w("c.who.path.hint")} required spellcheck={false} />
      </Form>
      {asked && (
        <Show of={answer}>
          {(a) => (
            <section aria-labelledby="verdict">
              <h2 id="verdict"><Verdict allowed={a!.allowed} /> {a!.uid ?? a!.role} {a!.verb} <code>{a!.path}</code></h2>
              <dl class="facts">
                <div><dt>{w("c.role")}</dt><dd>{a!.role}</dd></div>
                {a!.state && <div><dt>{w("c.state")}</dt><dd>{named("state", a!.state)}</dd></div>}
                {a!.block && <div><dt>{w("c.who.block")}</dt><dd><code>{a!.block}</code></dd></div>}
                {a!.pass && <div><dt>{w("c.who.pass")}</dt><dd><code>{a!.pass}</code></dd></div>}
                <div><dt>{w("c.who.audit")}</dt><dd>{a!.audit ? (a!.topic ?? w("c.yes")) : w("c.no")}</dd></div>
              </dl>
              {a!.matches.length === 0 ? (
                <p class="muted">{w("c.who.none")}</p>
              ) : (
                <Table label={w("c.who.rules")} heads={[w("c.rule.action"), w("c.rule.verb"), w("c.rule.path"), w("c.who.does")]}
                  rows={a!.matches.map((m, i) => ({
                    key: i,
                    cells: [m.action, m.verb, <code>{m.path}</code>, <>{named("c.deed", m.does ?? "")} {m.decides && <strong>{w("c.who.decides")}</strong>}</>],
                  }))} />
              )}
            </section>
          )}
        </Show>
      )}
    </>
  );
}

interface RuleChange { id: number; uid: string | null; subject: string; subject_id: number; action: "create" | "update" | "delete"; before: Record<string, unknown> | null; after: Record<string, unknown> | null; created_at: string }

const side = (x: Record<string, unknown> | null) => (x ? Object.entries(x).filter(([k, v]) => k !== "id" && v !== null && v !== "").map(([k, v]) => `${k}: ${String(v)}`).join(", ") : "–");

function History({ query }: { query: URLSearchParams }) {
  const subject = query.get("subject") ?? "";
  const list = useList<RuleChange>("/admin/permissions/history", { subject }, query);
  return (
    <>
      <nav class="tabs" aria-label={w("c.history.subject")}>
        {choices(["permission", "restriction"], (s) => w(s === "permission" ? "c.permissions" : "c.restrictions")).map((o) => (
          <a key={o.value} href={withQuery({ subject: o.value, page: undefined })} aria-current={o.value === subject ? "true" : undefined}>{o.label}</a>
        ))}
      </nav>
      <Rows of={list} label={w("c.permissions.history")} none={w("c.history.none")} heads={[w("c.when"), w("c.who"), w("c.what"), w("c.draft.before"), w("c.draft.after")]}
        row={(c) => [
          <time dateTime={c.created_at}>{time(c.created_at)}</time>,
          c.uid ? can("GET /admin/users/{uid}") ? <a href={"/console/users/" + encodeURIComponent(c.uid)}>{c.uid}</a> : c.uid : w("c.history.program"),
          <>{named("c.did", c.action)} {c.subject} #{c.subject_id}</>,
          <span class="long">{side(c.before)}</span>,
          <span class="long">{side(c.after)}</span>,
        ]} />
    </>
  );
}

/** /console/activities: what users did, and what staff did; as a file, too. */
import { page } from "../api";
import { time } from "../i18n";
import type { PageProps } from "../router";
import { Action, Field } from "../ui/form";
import { tell } from "../ui/notice";
import { withQuery } from "../ui/pager";
import { can } from "./abilities";
import { asked, choices, Filters, filtersOf, Rows, useList } from "./list";
import type { User } from "./users";
import { deed, named, w } from "./words";

interface Activity {
  user_ip: string;
  user_agent: string;
  topic: string;
  action: string;
  result: string;
  data: string | null;
  user?: User | null;
  admin?: User | null;
  target?: User | null;
  created_at: string;
}

const ofUsers = ["topic", "action", "uid", "email", "result", "from", "to"] as const;
const ofStaff = [...ofUsers, "target_uid"] as const;
const results = ["succeed", "failed", "denied"] as const;

/** The most rows of a file. */
const most = 10_000;

export function Activities({ query }: PageProps) {
  const mayStaff = can("GET /admin/activities/admin");
  const staff = mayStaff && query.get("of") === "staff";
  const path = staff ? "/admin/activities/admin" : "/admin/activities";
  const names = staff ? ofStaff : ofUsers;
  const filters = asked(filtersOf(query, names));
  const list = useList<Activity>(path, filters, query);
  const value = (n: string) => query.get(n) ?? "";

  const save = async (kind: "jsonl" | "csv") => {
    const rows: Activity[] = [];
    for (let number = 1; rows.length < most; number++) {
      const p = await page<Activity>(path, { ...filters, page: number, limit: 100 });
      rows.push(...p.rows);
      if (p.rows.length < 100) break;
    }
    const file = kind === "csv" ? csv(rows, staff) : rows.map((r) => JSON.stringify(r)).join("\n") + "\n";
    const a = document.createElement("a");
    a.href = URL.createObjectURL(new Blob([file], { type: kind === "csv" ? "text/csv;charset=utf-8" : "application/jsonl" }));
    a.download = `activities-${new Date().toISOString().slice(0, 10)}.${kind}`;
    a.click();
    setTimeout(() => URL.revokeObjectURL(a.href), 10_000);
    tell(w(rows.length >= most ? "c.export.cut" : "c.export.done", { n: rows.length }));
  };

  return (
    <>
      {mayStaff && (
        <nav class="tabs" aria-label={w("c.activities")}>
          <a href={withQuery({ of: undefined, target_uid: undefined, page: undefined })} aria-current={staff ? undefined : "true"}>{w("c.activities.users")}</a>
          <a href={withQuery({ of: "staff", page: undefined })} aria-current={staff ? "true" : undefined}>{w("c.activities.staff")}</a>
        </nav>
      )}
      <Filters query={query} names={names} label={w("c.filter")}>
        <Field name="topic" label={w("c.topic")} value={value("topic")} spellcheck={false} />
        <Field name="action" label={w("c.action")} value={value("action")} spellcheck={false} />
        <Field name="uid" label={w("c.uid")} value={value("uid")} spellcheck={false} />
        <Field name="email" label={w("c.email")} value={value("email")} spellcheck={false} />
        {staff && <Field name="target_uid" label={w("c.target_uid")} value={value("target_uid")} spellcheck={false} />}
        <Field name="result" label={w("c.result")} value={value("result")} options={choices(results, (r) => named("result", r))} />
        <Field name="from" type="date" label={w("c.from")} value={value("from")} />
        <Field name="to" type="date" label={w("c.to")} value={value("to")} />
      </Filters>
      <div class="actions">
        <Action quiet label={w("c.export.jsonl")} run={() => save("jsonl")} />
        <Action quiet label={w("c.export.csv")} run={() => save("csv")} />
      </div>
      <Rows of={list} label={w("c.activities")} none={w("c.activities.none")}
        heads={[w("c.when"), w("c.who"), ...(staff ? [w("c.target_uid")] : []), w("c.topic"), w("c.action"), w("c.result"), w("c.from.where")]}
        row={(a) => ({
          cells: [
            <time dateTime={a.created_at}>{time(a.created_at)}</time>,
            <Person of={(staff ? a.admin : a.user) ?? null} />,
            ...(staff ? [<Person of={a.target ?? null} />] : []),
            a.topic,
            deed(a.topic, a.action),
            <span class={"badge " + (a.result === "succeed" ? "good" : "bad")}>{named("result", a.result)}</span>,
            <>{a.user_ip} <span class="muted agent">{a.user_agent}</span></>,
          ],
          below: a.data && <code class="data"><span class="hidden">{w("c.data")}: </span>{a.data}</code>,
        })} />
    </>
  );
}

const Person = ({ of: u }: { of: User | null }) =>
  u === null ? <>–</> : can("GET /admin/users/{uid}") ? <a href={"/console/users/" + encodeURIComponent(u.uid)}>{u.email}</a> : <>{u.email}</>;

/** RFC 4180. A text that a spreadsheet would run as a formula gets an apostrophe before it. */
function csv(rows: Activity[], staff: boolean): string {
  const cell = (v: string | null | undefined) => {
    const s = (v ?? "").replace(/^[=+\-@\t\r]/, "'$&");
    return /[",\r\n]/.test(s) ? `"${s.replace(/"/g, '""')}"` : s;
  };
  const heads = ["created_at", "uid", "email", ...(staff ? ["target_uid", "target_email"] : []), "topic", "action", "result", "user_ip", "user_agent", "data"];
  const line = (a: Activity) => {
    const who = staff ? a.admin : a.user;
    return [a.created_at, who?.uid, who?.email, ...(staff ? [a.target?.uid, a.target?.email] : []), a.topic, a.action, a.result, a.user_ip, a.user_agent, a.data].map(cell).join(",");
  };
  return [heads.join(","), ...rows.map(line)].join("\r\n") + "\r\n";
}

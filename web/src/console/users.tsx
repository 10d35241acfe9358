/** /console/users: people, by every filter of the API. */
import { call } from "../api";
import { country } from "../i18n";
import { State } from "../pages/overview";
import type { PageProps } from "../router";
import { go } from "../router";
import { Field, Form } from "../ui/form";
import { withQuery } from "../ui/pager";
import { can } from "./abilities";
import { Changes } from "./changes";
import { asked, choices, Filters, filtersOf, Rows, useList } from "./list";
import { named, w } from "./words";

export interface User {
  email: string;
  uid: string;
  role: string;
  level: number;
  otp: boolean;
  state: string;
}

interface Listed extends User {
  created_at?: string;
  profiles?: { first_name: string | null; last_name: string | null; country: string | null }[];
}

const filters = ["uid", "email", "role", "first_name", "last_name", "country", "level", "state", "range", "from", "to"] as const;
const byLabel = ["key", "value", "scope"] as const;

export const states = ["active", "pending", "locked", "banned", "deleted"] as const;

export function Users({ query }: PageProps) {
  const labels = filtersOf(query, byLabel);
  const labelled = labels.key !== undefined && labels.value !== undefined && can("GET /admin/users/labels");
  const list = useList<Listed>(labelled ? "/admin/users/labels" : "/admin/users", labelled ? labels : { ...asked(filtersOf(query, filters)), extended: true }, query);
  const value = (n: string) => query.get(n) ?? "";
  return (
    <>
      <Filters query={query} names={labelled ? byLabel : filters} label={w("c.users.search")}>
        {labelled ? (
          <LabelFields value={value} />
        ) : (
          <>
            <Field name="email" label={w("c.email")} value={value("email")} spellcheck={false} />
            <Field name="uid" label={w("c.uid")} value={value("uid")} spellcheck={false} />
            <Field name="role" label={w("c.role")} value={value("role")} spellcheck={false} />
            <Field name="state" label={w("c.state")} value={value("state")} options={choices(states, (s) => named("state", s))} />
            <Field name="level" label={w("c.level")} value={value("level")} inputMode="numeric" pattern="[0-9]*" />
            <Field name="first_name" label={w("c.first_name")} value={value("first_name")} spellcheck={false} />
            <Field name="last_name" label={w("c.last_name")} value={value("last_name")} spellcheck={false} />
            <Field name="country" label={w("c.country")} value={value("country")} hint={w("c.country.hint")} spellcheck={false} />
            <Field name="range" label={w("c.range")} value={value("range")} options={choices(["created", "updated"], (r) => w(r === "updated" ? "c.range.updated" : "c.range.created"), w("c.range.created"))} />
            <Field name="from" type="date" label={w("c.from")} value={value("from")} />
            <Field name="to" type="date" label={w("c.to")} value={value("to")} />
          </>
        )}
      </Filters>
      {can("GET /admin/users/labels") && !labelled && (
        <details class="filters">
          <summary>{w("c.users.label")}</summary>
          <Form action={w("c.search")} label={w("c.users.label")} plain class="grid" send={async (v) => {
            const asked = filtersOf(new URLSearchParams(v), byLabel);
            if (!asked.key || !asked.value) await call("GET", "/admin/users/labels", asked); // refused, in the API's words
            go("/console/users?" + new URLSearchParams(asked));
          }}>
            <LabelFields value={value} />
          </Form>
        </details>
      )}
      {labelled && <p><a href={withQuery({ key: undefined, value: undefined, scope: undefined, page: undefined })}>{w("c.users.all")}</a></p>}
      <Rows of={list} label={w("c.users")} none={w("c.users.none")}
        heads={[w("c.email"), w("c.uid"), w("c.name"), w("c.role"), w("c.level"), w("c.state"), w("c.otp")]}
        row={(u) => [
          can("GET /admin/users/{uid}") ? <a href={"/console/users/" + encodeURIComponent(u.uid)}>{u.email}</a> : u.email,
          <code>{u.uid}</code>,
          nameOf(u),
          u.role,
          u.level,
          <State of={u.state} />,
          u.otp ? w("c.yes") : w("c.no"),
        ]} />
      <Changes />
    </>
  );
}

function LabelFields({ value }: { value: (name: string) => string }) {
  return (
    <>
      <Field name="key" label={w("c.label.key")} value={value("key")} required spellcheck={false} />
      <Field name="value" label={w("c.label.value")} value={value("value")} required spellcheck={false} />
      <Field name="scope" label={w("c.label.scope")} value={value("scope")} options={choices(["private", "public"], (s) => named("c.scope", s))} />
    </>
  );
}

function nameOf(u: Listed): string {
  const p = u.profiles?.at(-1);
  const name = [p?.first_name, p?.last_name].filter(Boolean).join(" ");
  return p?.country ? `${name} (${country(p.country)})` : name;
}

/** /console/keys: the API keys of everybody. */
import { time } from "../i18n";
import type { PageProps } from "../router";
import { Field } from "../ui/form";
import { can } from "./abilities";
import { choices, Filters, filtersOf, Rows, useList } from "./list";
import { w } from "./words";

interface Key {
  kid: string;
  uid: string;
  email: string;
  algorithm: string;
  scope: string[];
  state: string;
  created_at: string;
  updated_at: string;
}

const names = ["uid", "kid", "state"] as const;

export function Keys({ query }: PageProps) {
  const f = filtersOf(query, names);
  const list = useList<Key>("/admin/api_keys/list", f, query);
  return (
    <>
      <Filters query={query} names={names} label={w("c.filter")}>
        <Field name="uid" label={w("c.uid")} value={f.uid} spellcheck={false} />
        <Field name="kid" label={w("c.key.kid")} value={f.kid} spellcheck={false} />
        <Field name="state" label={w("c.state")} value={f.state} options={choices(["active", "inactive"], (s) => w(s === "active" ? "c.key.active" : "c.key.inactive"))} />
      </Filters>
      <Rows of={list} label={w("c.keys")} none={w("c.keys.none")} heads={[w("c.key.kid"), w("c.key.owner"), w("c.key.algorithm"), w("c.key.scope"), w("c.state"), w("c.created"), w("c.updated")]}
        row={(k) => [
          <code>{k.kid}</code>,
          can("GET /admin/users/{uid}") ? <a href={"/console/users/" + encodeURIComponent(k.uid)}>{k.email}</a> : k.email,
          k.algorithm,
          k.scope.join(", "),
          <span class={"badge " + (k.state === "active" ? "good" : "")}>{w(k.state === "active" ? "c.key.active" : "c.key.inactive")}</span>,
          <span>{time(k.created_at)}</span>,
          <span>{time(k.updated_at)}</span>,
        ]} />
    </>
  );
}

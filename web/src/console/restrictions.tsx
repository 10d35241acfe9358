/** /console/restrictions: who is let in or kept out by address and place; maintenance as one switch; whitelinks. */
import { useState } from "preact/hooks";
import { address, call, page } from "../api";
import { t, time } from "../i18n";
import type { PageProps } from "../router";
import { Action, Check, Field, Form } from "../ui/form";
import { Copy } from "../ui/copy";
import { Show, useLoad } from "../ui/load";
import { Table } from "../ui/table";
import { can } from "./abilities";
import { changed, Changes, Confirm, useChanges } from "./changes";
import { choices, Filters, filtersOf } from "./list";
import { named, w } from "./words";

interface Restriction {
  id: number;
  category: string;
  scope: string;
  value: string;
  code: number | null;
  state: string;
  updated_at: string;
}

const categories = ["maintenance", "blacklist", "blocklogin", "whitelist"] as const;
const scopes = ["all", "ip", "ip_subnet", "country", "continent"] as const;

const text = (r: Pick<Restriction, "category" | "scope" | "value">) => `${named("c.category", r.category)}: ${named("c.scope", r.scope)} ${r.value}`;
const put = (id: number, state: string) => call("PUT", "/admin/restrictions", { id, state });
const remove = (id: number) => call("DELETE", "/admin/restrictions?id=" + id);
const create = (r: { category: string; scope: string; value: string; code?: string | number | null; state?: string }) =>
  call("POST", "/admin/restrictions", { category: r.category, scope: r.scope, value: r.value, state: r.state ?? "enabled", ...(r.code ? { code: Number(r.code) } : {}) });

async function readAll(): Promise<Restriction[]> {
  const all: Restriction[] = [];
  for (let number = 1; ; number++) {
    const p = await page<Restriction>("/admin/restrictions", { page: number, limit: 100 });
    all.push(...p.rows);
    if (p.rows.length === 0 || all.length >= p.total) return all;
  }
}

const find = async (r: { category: string; scope: string; value: string }) => (await readAll()).filter((x) => x.category === r.category && x.scope === r.scope && x.value === r.value).at(-1);

interface Session { user_ip: string; current: boolean }

const ownAddress = async (): Promise<string> => (await call<Session[]>("GET", "/resource/sessions")).find((s) => s.current)?.user_ip ?? "";

/** Lets an address in, by the rule for it where there is one. */
async function letIn(ip: string): Promise<void> {
  const it = await find({ category: "whitelist", scope: "ip", value: ip });
  if (!it) await create({ category: "whitelist", scope: "ip", value: ip });
  else if (it.state !== "enabled") await put(it.id, "enabled");
}

/**
 * Comes before a rule is switched on. One that keeps everybody out keeps out who switches it as well, who could not switch it off again: their
 * own address is let in first.
 */
async function beforeOn(r: Pick<Restriction, "category" | "scope">): Promise<void> {
  if (r.scope !== "all" || !["maintenance", "blacklist"].includes(r.category) || !can("POST /admin/restrictions")) return;
  const own = await ownAddress();
  if (own && !(await readAll()).some((x) => x.category === "whitelist" && x.scope === "all" && x.state === "enabled")) await letIn(own);
}

const names = ["category", "scope"] as const;

export function Restrictions({ query }: PageProps) {
  const list = useLoad(readAll);
  useChanges(() => void list.again());
  const f = filtersOf(query, names);
  const mayCreate = can("POST /admin/restrictions");
  return (
    <>
      <Changes />
      <Show of={list}>
        {(all) => (
          <>
            <Maintenance all={all} />
            <Filters query={query} names={names} label={w("c.filter")}>
              <Field name="category" label={w("c.category")} value={f.category} options={choices(categories, (c) => named("c.category", c))} />
              <Field name="scope" label={w("c.label.scope")} value={f.scope} options={choices(scopes, (s) => named("c.scope", s))} />
            </Filters>
            {mayCreate && (
              <details>
                <summary>{w("c.restriction.add")}</summary>
                <Form action={w("c.restriction.add")} label={w("c.restriction.add")} class="grid" clears send={async ({ category = "", scope = "", value = "", code = "" }) => {
                  const r = { category, scope, value: scope === "all" && !value ? "all" : value, code };
                  await beforeOn(r);
                  await create(r);
                  await changed({ what: text(r), before: w("c.gone"), after: w("c.on"), undo: async () => { const it = await find(r); if (it) await remove(it.id); } });
                }}>
                  <Field name="category" label={w("c.category")} value="blacklist" options={categories.map((c) => ({ value: c, label: named("c.category", c) }))} />
                  <Field name="scope" label={w("c.label.scope")} value="ip" options={scopes.map((s) => ({ value: s, label: named("c.scope", s) }))} />
                  <Field name="value" label={w("c.label.value")} hint={w("c.restriction.value.hint")} spellcheck={false} />
                  <Field name="code" label={w("c.restriction.code")} hint={w("c.restriction.code.hint")} inputMode="numeric" pattern="[0-9]*" />
                </Form>
              </details>
            )}
            {categories.filter((c) => !f.category || f.category === c).map((c) => (
              <Category key={c} name={c} rows={all.filter((r) => r.category === c && (!f.scope || r.scope === f.scope))} />
            ))}
          </>
        )}
      </Show>
      {can("POST /admin/restrictions/whitelink") && <Whitelink />}
    </>
  );
}

function Category({ name, rows }: { name: string; rows: Restriction[] }) {
  const mayPut = can("PUT /admin/restrictions");
  const mayRemove = can("DELETE /admin/restrictions");
  return (
    <section aria-labelledby={"category-" + name}>
      <h2 id={"category-" + name}>{named("c.category", name)}</h2>
      {rows.length === 0 ? (
        <p class="muted">{w("c.restrictions.none")}</p>
      ) : (
        <Table label={named("c.category", name)} heads={[w("c.label.scope"), w("c.label.value"), w("c.restriction.code"), w("c.state"), w("c.updated"), ...(mayPut || mayRemove ? [w("c.rule.change")] : [])]}
          rows={rows.map((r) => {
            const on = r.state === "enabled";
            const next = on ? "disabled" : "enabled";
            const turn = async (to: string) => {
              if (to === "enabled") await beforeOn(r);
              await put(r.id, to);
            };
            const change = (
              <span class="actions">
                {mayPut && (
                  <Action quiet label={w(on ? "c.switch.off" : "c.switch.on")} hidden={text(r)} run={async () => {
                    await turn(next);
                    await changed({ what: text(r), before: w(on ? "c.on" : "c.off"), after: w(on ? "c.off" : "c.on"), undo: () => turn(r.state) });
                  }} />
                )}
                {mayRemove && (
                  <Confirm label={t("remove")} hidden={text(r)} text={w("c.restriction.remove")} run={async () => {
                    await remove(r.id);
                    await changed({ what: text(r), before: w(on ? "c.on" : "c.off"), after: w("c.gone"), ...(can("POST /admin/restrictions") ? { undo: async () => (on && (await beforeOn(r)), create(r)) } : {}) });
                  }} />
                )}
              </span>
            );
            return {
              key: r.id,
              cells: [
                named("c.scope", r.scope),
                <code>{r.value}</code>,
                r.code ?? "",
                <span class={"badge " + (on ? "good" : "")}>{w(on ? "c.on" : "c.off")}</span>,
                <time dateTime={r.updated_at}>{time(r.updated_at)}</time>,
                ...(mayPut || mayRemove ? [change] : []),
              ],
            };
          })} />
      )}
    </section>
  );
}

/** One switch for everybody. It keeps out who switches it as well, so their own address is let in first. */
function Maintenance({ all }: { all: Restriction[] }) {
  const rule = all.find((r) => r.category === "maintenance" && r.scope === "all" && r.state === "enabled") ?? all.find((r) => r.category === "maintenance" && r.scope === "all");
  const on = rule?.state === "enabled";
  const mine = useLoad(ownAddress);
  if (rule ? !can("PUT /admin/restrictions") : !can("POST /admin/restrictions")) return null;
  const whole = { category: "maintenance", scope: "all", value: "all" };
  const what = w("c.maintenance");
  const turn = async (to: boolean) => {
    const it = rule ?? (await find(whole));
    if (it) await put(it.id, to ? "enabled" : "disabled");
    else await create(whole);
  };
  const own = mine.value ?? "";
  const isIn = all.some((r) => r.category === "whitelist" && r.state === "enabled" && (r.scope === "all" || r.value === own));
  return (
    <section class={on ? "callout" : ""} aria-labelledby="maintenance">
      <h2 id="maintenance">{what} <span class={"badge " + (on ? "bad" : "")}>{w(on ? "c.on" : "c.off")}</span></h2>
      <p class="muted">{w("c.maintenance.text")}</p>
      {on ? (
        <Action label={w("c.maintenance.off")} run={async () => {
          await turn(false);
          await changed({ what, before: w("c.on"), after: w("c.off"), undo: () => turn(true) });
        }} />
      ) : (
        <Form action={w("c.maintenance.on")} label={what} danger send={async ({ letin }) => {
          if (letin && own && !isIn) await letIn(own);
          await turn(true);
          await changed({ what, before: w("c.off"), after: w("c.on"), undo: () => turn(false) });
        }}>
          {isIn ? <p class="muted">{w("c.maintenance.in", { ip: own })}</p> : can("POST /admin/restrictions") && own && <Check name="letin" label={w("c.maintenance.letin", { ip: own })} hint={w("c.maintenance.letin.hint")} checked />}
        </Form>
      )}
    </section>
  );
}

function Whitelink() {
  const [token, setToken] = useState("");
  return (
    <section aria-labelledby="whitelink">
      <h2 id="whitelink">{w("c.whitelink")}</h2>
      <p class="muted">{w("c.whitelink.text")}</p>
      <Form action={w("c.whitelink.make")} label={w("c.whitelink")} class="grid" send={async ({ expire_time = "1", range = "day" }) => {
        const made = await call<{ whitelink_token: string }>("POST", "/admin/restrictions/whitelink", { expire_time: Number(expire_time), range });
        setToken(made.whitelink_token);
      }}>
        <Field name="expire_time" type="number" label={w("c.whitelink.time")} value="1" min="1" max="30" required />
        <Field name="range" label={w("c.whitelink.range")} value="day" options={(["day", "hour"] as const).map((r) => ({ value: r, label: w(`c.whitelink.${r}`) }))} />
      </Form>
      {token && (
        <div class="keep">
          <Copy label={w("c.whitelink.token")} text={token} />
          <Copy block label={w("c.whitelink.curl")} text={`curl -X POST -d whitelink_token=${token} ${location.origin}${address("/identity/users/access")}`} />
        </div>
      )}
    </section>
  );
}

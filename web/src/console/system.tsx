/** /console/system: how the process that answers is. */
import { useState } from "preact/hooks";
import { call } from "../api";
import { ago, time } from "../i18n";
import { Show, useLoad } from "../ui/load";
import { Table } from "../ui/table";
import { named, w } from "./words";

interface System {
  version: string; commit: string; built_at: string; started_at: string; environment: string; compat: string; status: string;
  parts: { name: string; status: string; essential: boolean; reason?: string }[];
  policy: { version: number; loaded_at: string; age: number; own_model: boolean; error?: string; warnings: string[] };
  keys: { kid: string; algorithm: string; state: string }[];
  settings?: { name: string; value: string; source: string }[];
}

export function System() {
  const load = useLoad(() => call<System>("GET", "/admin/system"));
  const [sought, seek] = useState("");
  return (
    <Show of={load}>
      {(s) => (
        <>
          <section aria-labelledby="health">
            <h2 id="health">{w("c.system.health")} <span class={"badge " + (s.status === "ready" ? "good" : "bad")}>{named("c.status", s.status)}</span></h2>
            <Table label={w("c.system.health")} heads={[w("c.system.part"), w("c.state"), w("c.system.essential"), w("c.system.reason")]}
              rows={s.parts.map((p) => ({
                key: p.name,
                cells: [
                  p.name,
                  <span class={"badge " + (p.status === "ok" ? "good" : "bad")}>{named("c.status", p.status)}</span>,
                  p.essential ? w("c.yes") : w("c.no"),
                  p.reason ?? "",
                ],
              }))} />
            <p class="actions"><button type="button" class="quiet" onClick={() => void load.again()}>{w("c.system.again")}</button></p>
          </section>
          <section aria-labelledby="version">
            <h2 id="version">{w("c.system.version")}</h2>
            <dl class="facts">
              <div><dt>{w("c.system.version")}</dt><dd>{s.version}</dd></div>
              <div><dt>{w("c.system.commit")}</dt><dd><code>{s.commit}</code></dd></div>
              <div><dt>{w("c.system.started")}</dt><dd>{time(s.started_at)} ({ago(s.started_at)})</dd></div>
              <div><dt>{w("c.system.environment")}</dt><dd>{s.environment}</dd></div>
              <div><dt>{w("c.system.compat")}</dt><dd>{s.compat}</dd></div>
            </dl>
          </section>
          <section aria-labelledby="policy">
            <h2 id="policy">{w("c.system.policy")}</h2>
            <dl class="facts">
              <div><dt>{w("c.system.policy.version")}</dt><dd>{s.policy.version}</dd></div>
              <div><dt>{w("c.system.policy.age")}</dt><dd>{ago(s.policy.loaded_at)}</dd></div>
              <div><dt>{w("c.system.policy.model")}</dt><dd>{w(s.policy.own_model ? "c.system.policy.own" : "c.system.policy.shipped")}</dd></div>
            </dl>
            {s.policy.error && <p class="alert" role="alert">{s.policy.error}</p>}
            {s.policy.warnings.length > 0 && <ul>{s.policy.warnings.map((x) => <li key={x}>{x}</li>)}</ul>}
          </section>
          <section aria-labelledby="signing">
            <h2 id="signing">{w("c.system.keys")}</h2>
            <Table label={w("c.system.keys")} heads={[w("c.key.kid"), w("c.key.algorithm"), w("c.state")]}
              rows={s.keys.map((k) => ({ key: k.kid, cells: [<code>{k.kid}</code>, k.algorithm, k.state] }))} />
          </section>
          <section aria-labelledby="settings">
            <h2 id="settings">{w("c.system.settings")}</h2>
            {!s.settings ? (
              <p class="muted">{w("c.system.settings.hidden")}</p>
            ) : (
              <>
                <div class="field">
                  <label for="seek">{w("c.system.settings.seek")}</label>
                  <input id="seek" name="seek" type="search" onInput={(e) => seek((e.target as HTMLInputElement).value.toUpperCase())} />
                </div>
                <Table label={w("c.system.settings")} heads={[w("c.system.setting"), w("c.label.value"), w("c.system.source")]}
                  rows={s.settings.filter((x) => x.name.toUpperCase().includes(sought)).map((x) => ({
                    key: x.name, cells: [<code>{x.name}</code>, <span class="long">{x.value || "–"}</span>, named("c.source", x.source)],
                  }))} />
              </>
            )}
          </section>
        </>
      )}
    </Show>
  );
}

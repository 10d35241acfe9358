/** /console/levels: the steps of verification. */
import { call } from "../api";
import { hasWords, say } from "../i18n";
import { Show, useLoad } from "../ui/load";
import { can } from "./abilities";
import { Table } from "../ui/table";
import { w } from "./words";

interface Level {
  id: number;
  key: string;
  value: string | null;
}

export function Levels() {
  const list = useLoad(() => call<Level[]>("GET", "/admin/levels"));
  return (
    <>
      <p class="muted">{w("c.levels.explain")}</p>
      <Show of={list}>
        {(rows) =>
          rows.length === 0 ? (
            <p class="muted">{w("c.levels.none")}</p>
          ) : (
            <Table label={w("c.levels")} heads={[w("c.level"), w("c.label.key"), w("c.label.value"), w("c.what"), w("c.levels.who")]}
              rows={rows.map((l, i) => ({
                key: l.id,
                cells: [
                  i + 1,
                  <code>{l.key}</code>,
                  <code>{l.value}</code>,
                  hasWords("level." + l.key) ? say("level." + l.key) : "",
                  can("GET /admin/users") && <a href={`/console/users?level=${i + 1}`}>{w("c.levels.people")}<span class="hidden"> {i + 1}</span></a>,
                ],
              }))} />
          )
        }
      </Show>
    </>
  );
}

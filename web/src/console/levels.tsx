/** /console/levels: the steps of verification. */
import { call } from "../api";
import { hasWords, say } from "../i18n";
import { Show, useLoad } from "../ui/load";
import { can } from "./abilities";
import { Table } from "./list";
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
            <Table label={w("c.levels")} heads={[w("c.level"), w("c.label.key"), w("c.label.value"), w("c.what"), w("c.levels.who")]}>
              {rows.map((l, i) => (
                <tr key={l.id}>
                  <td>{i + 1}</td>
                  <td><code>{l.key}</code></td>
                  <td><code>{l.value}</code></td>
                  <td>{hasWords("level." + l.key) ? say("level." + l.key) : ""}</td>
                  <td>{can("GET /admin/users") && <a href={`/console/users?level=${i + 1}`}>{w("c.levels.people")}<span class="hidden"> {i + 1}</span></a>}</td>
                </tr>
              ))}
            </Table>
          )
        }
      </Show>
    </>
  );
}

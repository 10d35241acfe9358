/** /console/: what there is to do. */
import type { ComponentType } from "preact";
import { useMe } from "../me";
import type { PageProps } from "../router";
import { w, type Word } from "./words";

interface Section {
  path: string;
  title: Word;
}

/** The first page, with links to the sections that the caller may see. */
export const startOf = (sections: Section[]): ComponentType<PageProps> =>
  function Start() {
    const me = useMe();
    if (sections.length === 0) {
      return (
        <p>
          {w("c.start.nothing", { role: me?.role ?? "" })} <a href="/accounts/">{w("c.account")}</a>
        </p>
      );
    }
    return (
      <>
        <p class="muted">{w("c.start.text", { email: me?.email ?? "", role: me?.role ?? "" })}</p>
        <ul class="cards">
          {sections.map((s) => (
            <li key={s.path}>
              <a href={s.path}>
                <strong>{w(s.title)}</strong>
                <span class="muted">{w(`${s.title}.text` as Word)}</span>
              </a>
            </li>
          ))}
        </ul>
      </>
    );
  };

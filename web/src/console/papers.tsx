/** Pictures of documents, beside what their owner typed. */
import { useState } from "preact/hooks";
import { day, time } from "../i18n";
import { named, w } from "./words";

export interface Document {
  /** A signed address; an object around it under BARONG_COMPAT=2.4.17. */
  upload: string | { url: string | null } | null;
  doc_type: string | null;
  doc_number: string | null;
  doc_expire: string | null;
  metadata: string | null;
  created_at: string;
}

const addressOf = (d: Document): string | null => (typeof d.upload === "string" ? d.upload : (d.upload?.url ?? null));

/** The picture, where a browser may show it here: else a way to open it. */
function Picture({ of: d }: { of: Document }) {
  const [broken, setBroken] = useState(false);
  const href = addressOf(d);
  if (!href) return <p class="muted">{w("c.paper.gone")}</p>;
  const name = d.doc_type ? named("document", d.doc_type) : w("c.papers");
  const own = new URL(href, location.href).origin === location.origin && !/\.pdf(\?|$)/i.test(href);
  return (
    <figure class="paper">
      {own && !broken && <img src={href} alt={w("c.paper.alt", { type: name, number: d.doc_number ?? "" })} onError={() => setBroken(true)} />}
      <figcaption><a href={href} target="_blank" rel="noopener noreferrer">{w("c.paper.open")}<span class="hidden"> {name} {d.doc_number}</span></a></figcaption>
    </figure>
  );
}

export function Papers({ of: documents }: { of: Document[] }) {
  return (
    <ul class="papers">
      {documents.map((d, i) => (
        <li key={i}>
          <Picture of={d} />
          <dl class="facts">
            <div><dt>{w("c.paper.type")}</dt><dd>{d.doc_type ? named("document", d.doc_type) : "–"}</dd></div>
            <div><dt>{w("c.paper.number")}</dt><dd><code>{d.doc_number ?? "–"}</code></dd></div>
            <div><dt>{w("c.paper.expire")}</dt><dd>{d.doc_expire ? day(d.doc_expire) : "–"}</dd></div>
            <div><dt>{w("c.paper.sent")}</dt><dd>{time(d.created_at)}</dd></div>
          </dl>
        </li>
      ))}
    </ul>
  );
}

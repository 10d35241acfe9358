/** /accounts/documents: what proves who one is, uploaded with a bar that shows how far it is. */
import { useState } from "preact/hooks";
import { call, upload } from "../api";
import { day, hasWords, say, t, time } from "../i18n";
import { loadMe, useMe } from "../me";
import { Field, Form } from "../ui/form";
import { Show, useLoad } from "../ui/load";
import { tell } from "../ui/notice";

interface Document {
  upload: string | { url: string };
  doc_type: string;
  doc_number: string;
  doc_expire: string | null;
  created_at?: string;
}

interface Types {
  types: string[];
  expiry_required: boolean;
  limit: number;
  max_bytes: number;
  extensions: string[];
}

const link = (d: Document): string => (typeof d.upload === "string" ? d.upload : d.upload.url);
const typeName = (type: string): string => (hasWords("document." + type) ? say("document." + type) : type);

export function Documents() {
  const me = useMe();
  const list = useLoad(() => call<Document[]>("GET", "/resource/documents"));
  const types = useLoad(() => call<Types>("GET", "/resource/documents/types"));
  if (!me) return null;
  const state = me.labels.find((l) => l.scope === "private" && l.key === "document")?.value;
  return (
    <>
      {state && (
        <p>
          {t("documents.state")} <span class={"badge " + (state === "verified" ? "good" : state === "rejected" ? "bad" : "")}>{hasWords("label." + state) ? say("label." + state) : state}</span>
        </p>
      )}
      {state === "rejected" && <p>{t("documents.rejected")}</p>}
      <section aria-labelledby="have">
        <h2 id="have">{t("documents.have")}</h2>
        <Show of={list}>
          {(rows) =>
            rows.length === 0 ? (
              <p class="muted">{t("documents.none")}</p>
            ) : (
              <ul class="rows">
                {rows.map((d) => (
                  <li key={link(d)}>
                    <strong>{typeName(d.doc_type)}</strong> <span>{d.doc_number}</span>
                    {d.doc_expire && <span class="muted">{t("documents.until", { day: day(d.doc_expire) })}</span>}
                    {d.created_at && <span class="muted">{time(d.created_at)}</span>}
                    <a href={link(d)} target="_blank" rel="noopener">{t("documents.open")}<span class="hidden"> {typeName(d.doc_type)} {d.doc_number}</span></a>
                  </li>
                ))}
              </ul>
            )
          }
        </Show>
      </section>
      <section aria-labelledby="add">
        <h2 id="add">{t("documents.add")}</h2>
        <Show of={types}>{(kinds) => <Upload kinds={kinds} done={list.again} />}</Show>
      </section>
    </>
  );
}

function Upload({ kinds, done }: { kinds: Types; done: () => Promise<void> }) {
  const [sent, setSent] = useState<number>();
  const send = async (_: Record<string, string>, form: HTMLFormElement) => {
    const body = new FormData();
    for (const [k, v] of new FormData(form)) {
      if (k === "upload") body.append("upload[]", v);
      else if (v !== "") body.append(k, v);
    }
    setSent(0);
    try {
      await upload("/resource/documents", body, setSent);
    } finally {
      setSent(undefined);
    }
    await Promise.all([done(), loadMe()]);
    tell(t("documents.done"));
  };
  const megabytes = new Intl.NumberFormat(document.documentElement.lang, { style: "unit", unit: "megabyte" }).format(Math.floor(kinds.max_bytes / (1 << 20)));
  return (
    <Form action={t("documents.send")} send={send} clears>
      <Field name="doc_type" label={t("field.doc_type")} required options={kinds.types.map((value) => ({ value, label: typeName(value) }))} />
      <Field name="doc_number" label={t("field.doc_number")} hint={t("documents.number.hint")} required maxLength={128} spellcheck={false} />
      <Field name="doc_expire" type="date" label={t("field.doc_expire")} required={kinds.expiry_required} min={new Date().toISOString().slice(0, 10)} />
      <Field name="upload" type="file" label={t("field.upload")} required multiple accept={kinds.extensions.map((e) => "." + e).join(",")}
        hint={t("documents.files.hint", { types: kinds.extensions.join(", "), size: megabytes })} />
      {sent !== undefined && (
        <p class="progress">
          <progress max={1} value={sent} aria-label={t("documents.progress")} />
          <span>{new Intl.NumberFormat(document.documentElement.lang, { style: "percent" }).format(sent)}</span>
        </p>
      )}
    </Form>
  );
}

/** Lists with filters: both stand in the address bar, so that they can be kept and sent. */
import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import { page, type Page, type Values } from "../api";
import { go } from "../router";
import { Form } from "../ui/form";
import { Show, useLoad, type Loaded } from "../ui/load";
import { Empty, pageOf, Pager, withQuery } from "../ui/pager";
import { Table, type TableRow } from "../ui/table";
import { useChanges } from "./changes";
import { w } from "./words";

/** Rows of a page of the console. */
export const size = 25;

/** The filters of an address: those of the names that have a value. */
export const filtersOf = (query: URLSearchParams, names: readonly string[]): Record<string, string> =>
  Object.fromEntries(names.map((n) => [n, query.get(n)?.trim() ?? ""]).filter(([, v]) => v !== "") as [string, string][]);

/** A day of the address bar (YYYY-MM-DD) as the API's bounds count: its first or its last second, since 1970. */
export const seconds = (day: string | undefined, end = false): number | undefined => {
  if (!day) return undefined;
  const at = Date.parse(day + "T00:00:00") / 1000;
  return Number.isNaN(at) ? undefined : at + (end ? 86_399 : 0);
};

/** Filters as the API takes them: the days from and to become seconds. */
export const asked = ({ from, to, ...rest }: Record<string, string>): Values => ({ ...rest, from: seconds(from), to: seconds(to, true) });

/** Loads the page of a list that the address names. */
export function useList<Row>(path: string, filters: Values, query: URLSearchParams, limit = size): Loaded<Page<Row>> {
  const number = pageOf(query);
  const list = useLoad(() => page<Row>(path, { ...filters, page: number, limit }), [path, JSON.stringify(filters), number]);
  useChanges(() => void list.again());
  return list;
}

/** The form above a list. What is sent goes into the address. */
export function Filters({ query, names, label, children }: { query: URLSearchParams; names: readonly string[]; label: string; children: ComponentChildren }) {
  const now = JSON.stringify(filtersOf(query, names));
  const shown = useRef({ text: now, turn: 0 });
  if (shown.current.text !== now) shown.current = { text: now, turn: shown.current.turn + 1 }; // by the browser's buttons, or a link
  const send = async (values: Record<string, string>) => {
    const filters = Object.fromEntries(names.map((n) => [n, (values[n] ?? "").trim()]));
    shown.current.text = JSON.stringify(filtersOf(new URLSearchParams(filters), names));
    go(withQuery({ ...filters, page: undefined }));
  };
  return (
    <details class="filters" open={now !== "{}"}>
      <summary>{label}</summary>
      <Form key={shown.current.turn} action={w("c.search")} send={send} label={label} class="grid"
        aside={now === "{}" ? undefined : <a href={withQuery({ ...Object.fromEntries(names.map((n) => [n, undefined])), page: undefined })}>{w("c.search.clear")}</a>}>
        {children}
      </Form>
    </details>
  );
}

/** A page of a list as a table, with how many there are, or that there are none. */
export function Rows<Row>({ of, label, heads, none, row }: { of: Loaded<Page<Row>>; label: string; heads: string[]; none: string; row: (row: Row) => TableRow["cells"] | Pick<TableRow, "cells" | "below"> }) {
  return (
    <Show of={of}>
      {(p) =>
        p.rows.length === 0 ? (
          <Empty page={p.page} none={none} />
        ) : (
          <>
            <p class="muted" role="status">{w("c.total", { n: p.total })}</p>
            <Table label={label} heads={heads} rows={p.rows.map((r, i) => {
              const shown = row(r);
              return { key: i, ...(Array.isArray(shown) ? { cells: shown } : shown) };
            })} />
            <Pager page={p.page} perPage={p.perPage} total={p.total} />
          </>
        )
      }
    </Show>
  );
}

/** Choices of a select, with one for any. */
export const choices = (values: readonly string[], name: (v: string) => string = (v) => v, any = w("c.any")): { value: string; label: string }[] => [
  { value: "", label: any },
  ...values.map((v) => ({ value: v, label: name(v) })),
];

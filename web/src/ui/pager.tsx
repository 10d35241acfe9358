/** Pages of a list, in the address bar. */
import { t } from "../i18n";

/** The address of this page with other parameters: empty ones are left out. */
export function withQuery(change: Record<string, string | number | undefined>): string {
  const query = new URLSearchParams(location.search);
  for (const [k, v] of Object.entries(change)) {
    if (v === undefined || v === "") query.delete(k);
    else query.set(k, String(v));
  }
  const text = query.toString();
  return location.pathname + (text ? "?" + text : "");
}

/** The page of a list that the address names, from 1. */
export const pageOf = (query: URLSearchParams): number => {
  const number = Math.trunc(Number(query.get("page")));
  return number >= 1 ? Math.min(number, 1_000_000) : 1;
};

/** In the place of an empty list: what there is none of or, on a page behind the last, that this one is empty, and the way back. */
export function Empty({ page, none }: { page: number; none: string }) {
  if (page <= 1) return <p class="muted" role="status">{none}</p>;
  return (
    <p>
      <span class="muted" role="status">{t("pager.beyond", { page })}</span> <a href={withQuery({ page: undefined })}>{t("pager.first")}</a>
    </p>
  );
}

export function Pager({ page, perPage, total }: { page: number; perPage: number; total: number }) {
  const last = Math.max(1, Math.ceil(total / (perPage || 1)));
  if (last === 1 && page <= 1) return null;
  return (
    <nav class="pager" aria-label={t("pager.label")}>
      {page > 1 ? <a class="button" rel="prev" href={withQuery({ page: page === 2 ? undefined : page - 1 })}>{t("pager.prev")}</a> : <span />}
      <span role="status">{t("pager.of", { page, last })}</span>
      {page < last ? <a class="button" rel="next" href={withQuery({ page: page + 1 })}>{t("pager.next")}</a> : <span />}
    </nav>
  );
}

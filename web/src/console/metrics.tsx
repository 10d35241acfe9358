/** /console/metrics: sign-ups and sign-ins by day, drawn, and as a table for who cannot see a drawing. */
import { call } from "../api";
import { day } from "../i18n";
import type { PageProps } from "../router";
import { Show, useLoad } from "../ui/load";
import { withQuery } from "../ui/pager";
import { can } from "./abilities";
import { Table } from "../ui/table";
import { w, type Word } from "./words";

type ByDay = Record<string, number>;
interface Figures { signups: ByDay; sucessful_logins: ByDay; failed_logins: ByDay; pending_applications: number }

const spans = [7, 30, 90] as const;
const dayOf = (d: Date) => d.toISOString().slice(0, 10);

export function Metrics({ query }: PageProps) {
  const span = spans.find((s) => String(s) === query.get("days")) ?? 30;
  const today = new Date();
  const days = Array.from({ length: span }, (_, i) => dayOf(new Date(today.getTime() - (span - 1 - i) * 86_400_000)));
  const figures = useLoad(() => call<Figures>("GET", "/admin/metrics", { created_from: days[0], created_to: days.at(-1) }), [span]);
  return (
    <>
      <nav class="tabs" aria-label={w("c.metrics.span")}>
        {spans.map((s) => (
          <a key={s} href={withQuery({ days: s === 30 ? undefined : s })} aria-current={s === span ? "true" : undefined}>{w("c.metrics.days", { n: s })}</a>
        ))}
      </nav>
      <Show of={figures}>
        {(f) => (
          <>
            <p>
              {w("c.metrics.pending", { n: f.pending_applications })}{" "}
              {can("GET /admin/users/documents/pending") && <a href="/console/documents">{w("c.documents")}</a>}
            </p>
            <Chart title="c.metrics.signups" of={f.signups} days={days} />
            <Chart title="c.metrics.logins" of={f.sucessful_logins} days={days} />
            <Chart title="c.metrics.failed" of={f.failed_logins} days={days} />
          </>
        )}
      </Show>
    </>
  );
}

function Chart({ title, of, days }: { title: Word; of: ByDay; days: string[] }) {
  const counts = new Map(Object.entries(of).map(([k, n]) => [k.slice(0, 10), n]));
  const rows = days.map((d) => ({ d, n: counts.get(d) ?? 0 }));
  const top = Math.max(1, ...rows.map((r) => r.n));
  const total = rows.reduce((s, r) => s + r.n, 0);
  const width = 600, height = 120, step = width / rows.length;
  return (
    <section aria-labelledby={title}>
      <h2 id={title}>{w(title)} <span class="muted">{total}</span></h2>
      <svg class="chart" viewBox={`0 0 ${width} ${height + 4}`} preserveAspectRatio="none" role="img" aria-label={w("c.metrics.chart", { what: w(title), total, top })}>
        <line class="axis" x1="0" y1={height + 1} x2={width} y2={height + 1} />
        {rows.map((r, i) => (
          <rect key={r.d} class="bar" x={i * step + step * 0.1} width={step * 0.8} y={height - (r.n / top) * height} height={(r.n / top) * height}>
            <title>{`${day(r.d)}: ${r.n}`}</title>
          </rect>
        ))}
      </svg>
      <p class="muted span"><span>{day(days[0]!)}</span><span>{day(days.at(-1)!)}</span></p>
      <details>
        <summary>{w("c.metrics.table")}</summary>
        <Table label={w(title)} heads={[w("c.metrics.day"), w("c.metrics.count")]} rows={rows.map((r) => ({ key: r.d, cells: [day(r.d), r.n] }))} />
      </details>
    </section>
  );
}

/** Tables. Where one does not fit beside what is around it, its rows become cards of labelled facts. */
import { Fragment, type ComponentChildren } from "preact";

export interface TableRow {
  key: string | number;
  /** One a head. An empty text is left out of a card. */
  cells: ComponentChildren[];
  /** What is opened below the row, as wide as the table. */
  below?: ComponentChildren;
  /** It goes away when a draft is saved. */
  gone?: boolean;
}

/** From so many columns on, a table needs more room before it is one. */
const many = 6;

/** A text of more letters may be broken anywhere. */
const long = 20;

/** The roles are said since a table whose parts are laid out as blocks is none any more for some screen readers. */
export function Table({ label, heads, rows }: { label: string; heads: string[]; rows: TableRow[] }) {
  return (
    <div class={"table" + (heads.length >= many ? " wide" : "")}>
      <table role="table" aria-label={label}>
        <thead role="rowgroup">
          <tr role="row">
            {heads.map((h) => (
              <th key={h} role="columnheader" scope="col">{h}</th>
            ))}
          </tr>
        </thead>
        <tbody role="rowgroup">
          {rows.map((r) => (
            <Fragment key={r.key}>
              <tr role="row" class={r.gone ? "gone" : ""}>
                {r.cells.map((cell, i) => (
                  <td key={i} role="cell" data-label={heads[i]}>{typeof cell === "string" && cell.length > long ? <span class="long">{cell}</span> : cell}</td>
                ))}
              </tr>
              {r.below && <tr role="row" class="below"><td role="cell" colSpan={heads.length}>{r.below}</td></tr>}
            </Fragment>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** /accounts/activity: what happened to the account, by topic, a page at a time. */
import { page, Refusal } from "../api";
import { hasWords, say, t, time } from "../i18n";
import type { PageProps } from "../router";
import { Show, useLoad } from "../ui/load";
import { Empty, pageOf, Pager, withQuery } from "../ui/pager";
import { Table } from "../ui/table";

interface Activity {
  user_ip: string;
  user_agent: string;
  topic: string;
  action: string;
  result: string;
  data: string | null;
  created_at: string;
}

const topics = ["all", "session", "password", "otp", "account"] as const;
const size = 25;

export function Activities({ query }: PageProps) {
  const topic = topics.find((x) => x === query.get("topic")) ?? "all";
  const number = pageOf(query);
  const list = useLoad(
    () =>
      page<Activity>("/resource/users/activity/" + topic, { page: number, limit: size }).catch((e) => {
        if (e instanceof Refusal && e.has("resource.user.no_activity")) return { rows: [], total: 0, page: 1, perPage: size };
        throw e;
      }),
    [topic, number],
  );
  return (
    <>
      <nav class="tabs" aria-label={t("activity.topics")}>
        {topics.map((x) => (
          <a key={x} href={withQuery({ topic: x === "all" ? undefined : x, page: undefined })} aria-current={x === topic ? "true" : undefined}>{t(`activity.topic.${x}`)}</a>
        ))}
      </nav>
      <Show of={list}>
        {(p) =>
          p.rows.length === 0 ? (
            <Empty page={number} none={t("activity.none")} />
          ) : (
            <>
              <Table label={t("activity.title")} heads={[t("activity.when"), t("activity.what"), t("activity.result"), t("activity.from")]}
                rows={p.rows.map((a, i) => ({
                  key: i,
                  cells: [
                    <time dateTime={a.created_at}>{time(a.created_at)}</time>,
                    <>{action(a)}{reason(a)}</>,
                    <span class={"badge " + (a.result === "succeed" ? "good" : "bad")}>{hasWords("result." + a.result) ? say("result." + a.result) : a.result}</span>,
                    <>{a.user_ip} <span class="muted agent">{a.user_agent}</span></>,
                  ],
                }))} />
              <Pager page={p.page} perPage={p.perPage} total={p.total} />
            </>
          )
        }
      </Show>
    </>
  );
}

const word = (key: string): string | undefined => (hasWords(key) ? say(key) : undefined);

const action = (a: Activity): string => word(`action.${a.topic}.${a.action}`) ?? word("action." + a.action) ?? a.action;

function reason(a: Activity) {
  try {
    const said = (JSON.parse(a.data ?? "null") as { reason?: string } | null)?.reason;
    return said ? <span class="muted reason">{word("reason." + said) ?? said}</span> : null;
  } catch {
    return null;
  }
}

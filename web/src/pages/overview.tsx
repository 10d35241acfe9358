/** /accounts/: the account at a glance, and what raises its level. */
import { call } from "../api";
import { config } from "../config";
import { hasWords, say, t, time } from "../i18n";
import { useMe, type Me } from "../me";
import { Show, useLoad } from "../ui/load";
import { Resend } from "./signup";

interface Level {
  id: number;
  key: string;
  value: string;
  description: string | null;
}

/** Where one can do something for a level. */
const ways: Record<string, string> = { phone: "/accounts/phones", document: "/accounts/documents", profile: "/accounts/profile", otp: "/accounts/security" };

const label = (me: Me, key: string): string | undefined => me.labels.find((l) => l.scope === "private" && l.key === key)?.value;

export function Overview() {
  const me = useMe();
  const levels = useLoad(() => call<Level[]>("GET", "/resource/levels"));
  if (!me) return null;
  const profile = me.profiles.at(-1);
  const name = [profile?.first_name, profile?.last_name].filter(Boolean).join(" ");
  return (
    <>
      <section aria-labelledby="who">
        <h2 id="who" class="who">{name || me.email}</h2>
        <dl class="facts">
          <div><dt>{t("field.email")}</dt><dd>{me.email}</dd></div>
          <div><dt>{t("overview.uid")}</dt><dd><code>{me.uid}</code></dd></div>
          <div><dt>{t("overview.state")}</dt><dd><State of={me.state} /></dd></div>
          <div><dt>{t("overview.role")}</dt><dd>{me.role}</dd></div>
          <div><dt>{t("overview.since")}</dt><dd>{time(me.created_at)}</dd></div>
        </dl>
      </section>
      {me.state === "pending" && (
        <section aria-labelledby="pending">
          <h2 id="pending">{t("overview.pending")}</h2>
          <p>{t("overview.pending.text", { email: me.email })}</p>
          <Resend email={me.email} />
        </section>
      )}
      <section aria-labelledby="level">
        <h2 id="level">{t("overview.level", { level: me.level })}</h2>
        <Show of={levels}>
          {(list) => (
            <ol class="levels">
              {list.map((l, i) => {
                const has = label(me, l.key);
                const done = i < me.level;
                const next = i === me.level;
                const way = l.key === "phone" && !config.phones ? undefined : ways[l.key];
                return (
                  <li key={l.id} class={done ? "done" : ""} aria-current={next ? "step" : undefined}>
                    <strong>{hasWords("level." + l.key) ? say("level." + l.key) : (l.description ?? `${l.key}: ${l.value}`)}</strong>
                    <span class={"badge " + (done ? "good" : has === "rejected" ? "bad" : "")}>
                      {done ? t("level.done") : has && hasWords("label." + has) ? say("label." + has) : next ? t("level.next") : t("level.later")}
                    </span>
                    {next && way && <a href={way}>{t("level.go")}</a>}
                    {next && has === "rejected" && <p class="hint">{t("level.rejected")}</p>}
                  </li>
                );
              })}
            </ol>
          )}
        </Show>
      </section>
      <section aria-labelledby="safe">
        <h2 id="safe">{t("overview.safe")}</h2>
        <p>
          {t(me.otp ? "overview.otp.on" : "overview.otp.off")} <a href="/accounts/security">{t(me.otp ? "overview.security" : "overview.otp.link")}</a>
        </p>
      </section>
      <p class="foot">
        <a href="/accounts/delete">{t("delete.link")}</a>
      </p>
    </>
  );
}

/** The state of an account, in words. */
export const State = ({ of }: { of: string }) => (
  <span class={"badge " + (of === "active" ? "good" : of === "pending" ? "" : "bad")}>{hasWords("state." + of) ? say("state." + of) : of}</span>
);

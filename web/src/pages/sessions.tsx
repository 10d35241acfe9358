/** /accounts/sessions: where one is signed in. */
import { call } from "../api";
import { ago, country, hasWords, joined, say, t, time } from "../i18n";
import { Action } from "../ui/form";
import { Show, useLoad } from "../ui/load";
import { tell } from "../ui/notice";

interface Session {
  id: string;
  user_ip: string;
  country: string;
  user_agent: string;
  device: string;
  amr: string[];
  created_at: string;
  seen_at: string;
  current: boolean;
}

export function Sessions() {
  const list = useLoad(() => call<Session[]>("GET", "/resource/sessions"));
  const end = async (path: string, text: string) => {
    await call("DELETE", path);
    await list.again();
    tell(text);
  };
  return (
    <>
      <p class="muted">{t("sessions.text")}</p>
      <Show of={list}>
        {(rows) => (
          <>
            <ul class="rows">
              {rows.map((s) => (
                <li key={s.id}>
                  <strong>{s.device || t("sessions.unknown")}</strong>
                  {s.current && <span class="badge good">{t("sessions.current")}</span>}
                  <span class="muted">
                    {joined(s.user_ip, s.country && country(s.country), t("sessions.seen", { time: ago(s.seen_at) }), t("sessions.since", { time: time(s.created_at) }),
                      s.amr.map((m) => (hasWords("amr." + m) ? say("amr." + m) : m)).join(" + "))}
                  </span>
                  {s.current ? (
                    <a class="button quiet" href="/accounts/signout">{t("signout.link")}</a>
                  ) : (
                    <Action quiet label={t("sessions.end")} hidden={s.device || s.user_ip} run={() => end("/resource/sessions/" + s.id, t("sessions.ended"))} />
                  )}
                </li>
              ))}
            </ul>
            {rows.length > 1 && <p class="actions"><Action danger label={t("sessions.others")} run={() => end("/resource/sessions", t("sessions.others.done"))} /></p>}
          </>
        )}
      </Show>
    </>
  );
}

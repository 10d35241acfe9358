/** What is around every page: header, navigation, language, and the place where the page is shown. */
import type { ComponentType } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { hearTabs } from "../api";
import { config } from "../config";
import { chooseLanguage, language, t } from "../i18n";
import { faults, type Fault } from "../faults";
import { keepLanguage, loadMe, signInAgain, useMe, type Me } from "../me";
import { match, useAddress, type PageProps, type Route } from "../router";
import { Alert } from "./form";
import { keepFocus } from "./focus";
import { Waiting } from "./load";
import { Notice, tell, turnPage } from "./notice";

export interface FrameProps {
  routes: Route[];
  /** Where the name of the service leads. */
  home: string;
  /** Whether who is signed in may see this application; undefined leaves that to its pages. */
  admits?: (me: Me) => boolean;
  /** A hook: leads to the other application, where there is one to lead to. */
  useOther?: () => { href: string; label: string } | undefined;
}

type Shown =
  | { is: "waiting" }
  | { is: "failed"; wrong: Fault[] }
  | { is: "missing" }
  | { is: "page"; route: Route; page: ComponentType<PageProps>; props: PageProps; path: string };

export function Frame({ routes, home, admits, useOther = () => undefined }: FrameProps) {
  const at = useAddress();
  const me = useMe();
  const elsewhere = useOther();
  const [shown, show] = useState<Shown>({ is: "waiting" });
  const heading = useRef<HTMLHeadingElement>(null);
  const first = useRef(true);
  const [, drawAgain] = useState(0);
  const found = match(routes, at.pathname);

  useEffect(() => {
    let current = true;
    const prepare = async (): Promise<Shown | undefined> => {
      if (!found) return { is: "missing" };
      const [page, account] = await Promise.all([found.route.load(), found.route.open || me ? me : loadMe()]);
      if (!found.route.open) {
        if (!account) return void (current && signInAgain());
        if (admits && !admits(account)) return { is: "missing" };
      }
      return { is: "page", route: found.route, page, props: { params: found.params, query: at.searchParams }, path: at.pathname };
    };
    prepare().then(
      (next) => {
        if (!current || !next) return;
        if (!first.current) {
          const another = next.is !== "page" || shown.is !== "page" || next.path !== shown.path;
          if (another || next.props.query.get("page") !== shown.props.query.get("page")) window.scrollTo(0, 0);
          // What had the focus may be gone with what was shown before; what is shown now may have taken it itself.
          const before = document.activeElement;
          setTimeout(() => {
            const now = document.activeElement;
            if (now === document.body || (another && now === before)) heading.current?.focus({ preventScroll: true });
          });
        }
        first.current = false;
        show(next);
      },
      (e) => current && show({ is: "failed", wrong: faults(e) }),
    );
    return () => {
      current = false;
    };
  }, [at.href]);

  useEffect(() => {
    hearTabs();
    keepFocus();
    // A page that the browser has kept as it was left may wait for what was answered long ago.
    window.addEventListener("pageshow", (e) => e.persisted && location.reload());
  }, []);

  const title = shown.is === "page" ? shown.route.title() : shown.is === "missing" ? t("missing.title") : t("loading");
  useEffect(() => {
    document.title = `${title} · ${config.name}`;
  }, [title]);
  useEffect(() => {
    if (shown.is === "page") turnPage();
  }, [shown.is === "page" && shown.path]);

  const choose = async (tag: string) => {
    await chooseLanguage(tag);
    tell(""); // what was told is in the language before
    drawAgain((n) => n + 1);
    if (me) await keepLanguage(tag).catch(() => {}); // the pages are in it all the same
  };

  const inside = me && !(shown.is === "page" && shown.route.open);
  const links = routes.filter((r) => r.nav);
  return (
    <>
      <a class="skip" href="#main">{t("skip")}</a>
      <header class="top">
        <a class="brand" href={home}>
          {config.logo ? <img src={config.logo} alt={config.name} /> : config.name}
        </a>
        <div class="right">
          <label class="language">
            <span class="hidden">{t("language.choose")}</span>
            <select name="language" onChange={(e) => void choose((e.target as HTMLSelectElement).value)}>
              {config.languages.map((l) => (
                <option key={l.tag} value={l.tag} lang={l.tag} selected={l.tag === language().tag}>{l.name}</option>
              ))}
            </select>
          </label>
          {inside && elsewhere && <a href={elsewhere.href}>{elsewhere.label}</a>}
          {inside && <a href="/accounts/signout">{t("signout.link")}</a>}
        </div>
      </header>
      <div class={inside ? "columns" : "single"}>
        {inside && (
          <nav aria-label={t("nav.label")}>
            <ul>
              {links.map((r) => (
                <li key={r.path}>
                  <a href={r.path} aria-current={found?.route === r || (r.path !== home && at.pathname.startsWith(r.path + "/")) ? "page" : undefined}>{r.title()}</a>
                </li>
              ))}
            </ul>
          </nav>
        )}
        <main id="main" tabIndex={-1} class={inside ? "" : "card"} aria-busy={shown.is === "waiting"}>
          <h1 ref={heading} tabIndex={-1}>{title}</h1>
          <Notice />
          {shown.is === "waiting" && <Waiting />}
          {shown.is === "failed" && (
            <>
              <Alert faults={shown.wrong} />
              <button type="button" onClick={() => location.reload()}>{t("again")}</button>
            </>
          )}
          {shown.is === "missing" && (
            <p>
              {t("missing.text")} <a href={home}>{t("missing.home")}</a>
            </p>
          )}
          {shown.is === "page" && <shown.page key={shown.path} {...shown.props} />}
        </main>
      </div>
    </>
  );
}

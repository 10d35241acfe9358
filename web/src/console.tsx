/** The console: what staff may do, and nothing that they may not. */
import { render } from "preact";
import { isSignedOut } from "./api";
import { addWords, loadLanguage, t } from "./i18n";
import words from "./lang/console.en.json";
import { signInAgain } from "./me";
import { catchLinks, type Route } from "./router";
import { faults } from "./faults";
import { can, loadAbilities } from "./console/abilities";
import { w, type Word } from "./console/words";
import { Alert } from "./ui/form";
import { Frame } from "./ui/frame";

/** A page of the console, and the call without which there is nothing on it. */
interface Section {
  path: string;
  title: Word;
  needs: string;
  load: Route["load"];
  /** It is listed by the navigation. */
  nav?: boolean;
}

export const sections: Section[] = [
  { path: "/console/users", title: "c.users", needs: "GET /admin/users", nav: true, load: () => import("./console/users").then((m) => m.Users) },
  { path: "/console/users/{uid}", title: "c.user", needs: "GET /admin/users/{uid}", load: () => import("./console/user").then((m) => m.UserPage) },
  { path: "/console/documents", title: "c.documents", needs: "GET /admin/users/documents/pending", nav: true, load: () => import("./console/documents").then((m) => m.Documents) },
  { path: "/console/permissions", title: "c.permissions", needs: "GET /admin/permissions", nav: true, load: () => import("./console/permissions").then((m) => m.Permissions) },
  { path: "/console/restrictions", title: "c.restrictions", needs: "GET /admin/restrictions", nav: true, load: () => import("./console/restrictions").then((m) => m.Restrictions) },
  { path: "/console/activities", title: "c.activities", needs: "GET /admin/activities", nav: true, load: () => import("./console/activities").then((m) => m.Activities) },
  { path: "/console/levels", title: "c.levels", needs: "GET /admin/levels", nav: true, load: () => import("./console/levels").then((m) => m.Levels) },
  { path: "/console/keys", title: "c.keys", needs: "GET /admin/api_keys/list", nav: true, load: () => import("./console/keys").then((m) => m.Keys) },
  { path: "/console/metrics", title: "c.metrics", needs: "GET /admin/metrics", nav: true, load: () => import("./console/metrics").then((m) => m.Metrics) },
  { path: "/console/system", title: "c.system", needs: "GET /admin/system", nav: true, load: () => import("./console/system").then((m) => m.System) },
];

function routes(): Route[] {
  const open = sections.filter((s) => can(s.needs));
  const start: Route = {
    path: "/console/",
    title: () => w("c.start"),
    load: () => import("./console/start").then((m) => m.startOf(open.filter((s) => s.nav))),
  };
  return [
    { ...start, nav: true },
    ...open.map((s) => ({ path: s.path, title: () => w(s.title), load: s.load, ...(s.nav ? { nav: true } : {}) })),
  ];
}

async function begin(): Promise<void> {
  addWords(words);
  await loadLanguage("console");
  const app = document.getElementById("app")!;
  app.replaceChildren();
  try {
    await loadAbilities();
  } catch (e) {
    if (isSignedOut(e)) return signInAgain();
    render(
      <main id="main" class="card">
        <h1>{w("c.start")}</h1>
        <Alert faults={faults(e)} />
        <button type="button" onClick={() => location.reload()}>{t("again")}</button>
      </main>,
      app,
    );
    return;
  }
  const all = routes();
  catchLinks(all);
  render(<Frame routes={all} home="/console/" useOther={() => ({ href: "/accounts/", label: w("c.account") })} />, app);
}

await begin();

/** The portal: signing in and up, and one's own account. */
import { render } from "preact";
import { config } from "./config";
import { loadLanguage, t } from "./i18n";
import { catchLinks, type Route } from "./router";
import { Frame } from "./ui/frame";
import { SignIn } from "./pages/signin";
import { useConsole } from "./roles";

const enter = () => import("./pages/enter");
const account = () => import("./pages/account");

const routes: Route[] = [
  { path: "/accounts/signin", title: () => t("signin.title"), open: true, load: async () => SignIn },
  { path: "/accounts/signup", title: () => t("signup.title"), open: true, load: async () => (await enter()).SignUp },
  { path: "/accounts/confirmation", title: () => t("confirmation.title"), open: true, load: async () => (await enter()).Confirmation },
  { path: "/accounts/forgot", title: () => t("forgot.title"), open: true, load: async () => (await enter()).Forgot },
  { path: "/accounts/password_reset", title: () => t("reset.title"), open: true, load: async () => (await enter()).Reset },
  { path: "/accounts/", title: () => t("overview.title"), nav: true, load: async () => (await account()).Overview },
  { path: "/accounts/profile", title: () => t("profile.title"), nav: true, load: async () => (await account()).ProfilePage },
  { path: "/accounts/phones", title: () => t("phones.title"), nav: true, load: async () => (await account()).Phones },
  { path: "/accounts/documents", title: () => t("documents.title"), nav: true, load: async () => (await account()).Documents },
  { path: "/accounts/security", title: () => t("security.title"), nav: true, load: async () => (await account()).Security },
  { path: "/accounts/sessions", title: () => t("sessions.title"), nav: true, load: async () => (await account()).Sessions },
  { path: "/accounts/keys", title: () => t("keys.title"), nav: true, load: async () => (await account()).Keys },
  { path: "/accounts/activity", title: () => t("activity.title"), nav: true, load: async () => (await account()).Activities },
  { path: "/accounts/delete", title: () => t("delete.title"), load: async () => (await account()).Delete },
  { path: "/accounts/signout", title: () => t("signout.title"), open: true, load: async () => (await account()).SignOut },
];
const shown = routes.filter((r) => config.phones || r.path !== "/accounts/phones");

await loadLanguage("portal");
catchLinks(shown);
const app = document.getElementById("app")!;
app.replaceChildren();
render(<Frame routes={shown} home="/accounts/" useOther={() => (useConsole() ? { href: "/console/", label: t("console.link") } : undefined)} />, app);

/** Which page an address shows, and how one gets from one to the next without loading the program again. */
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";

export interface Route {
  /** Path, with {names} for segments that vary. */
  path: string;
  /** Its heading, and what the browser's tab says. */
  title: () => string;
  /** The page, which is fetched when it is first shown. */
  load: () => Promise<ComponentType<PageProps>>;
  /** Strangers may see it. */
  open?: boolean;
  /** It stands in the navigation. */
  nav?: boolean;
}

export interface PageProps {
  /** What the {names} of the path stand for. */
  params: Record<string, string>;
  query: URLSearchParams;
}

const listeners = new Set<() => void>();
const changed = () => listeners.forEach((l) => l());
window.addEventListener("popstate", changed);

/** Goes to another page of this application. */
export function go(to: string, replace = false): void {
  history[replace ? "replaceState" : "pushState"](null, "", to);
  changed();
}

/** The address that is shown; a component that uses it is drawn anew when it changes. */
export function useAddress(): URL {
  const [at, set] = useState(() => new URL(location.href));
  useEffect(() => {
    const update = () => set(new URL(location.href));
    listeners.add(update);
    return () => void listeners.delete(update);
  }, []);
  return at;
}

/** Finds the route of a path. */
export function match(routes: Route[], path: string): { route: Route; params: Record<string, string> } | undefined {
  const segments = (p: string) => p.replace(/\/$/, "").split("/");
  const have = segments(path);
  for (const route of routes) {
    const want = segments(route.path);
    const params: Record<string, string> = {};
    const fits =
      want.length === have.length &&
      want.every((w, i) => {
        const name = /^\{(\w+)\}$/.exec(w)?.[1];
        if (!name) return w === have[i];
        try {
          params[name] = decodeURIComponent(have[i]!);
        } catch {
          return false;
        }
        return true;
      });
    if (fits) return { route, params };
  }
  return undefined;
}

/** Has links to pages of these routes change the page instead of loading it. */
export function catchLinks(routes: Route[]): void {
  document.addEventListener("click", (e) => {
    if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
    const a = (e.target as Element).closest?.("a");
    if (!a || a.target || a.hasAttribute("download") || a.origin !== location.origin || !match(routes, a.pathname)) return;
    if (a.hash && a.pathname === location.pathname && a.search === location.search) return;
    e.preventDefault();
    go(a.pathname + a.search);
  });
}

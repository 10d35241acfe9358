/** What the caller's role may do, as the API tells: what it may not is not offered. */
import { call } from "../api";

let calls = new Set<string>();

export async function loadAbilities(): Promise<void> {
  const abilities = await call<{ role: string; calls: string[] }>("GET", "/resource/abilities");
  calls = new Set(abilities.calls);
}

/** Reports whether the role may make a call, such as "PUT /admin/users". */
export const can = (what: string): boolean => calls.has(what);

/** The account that is signed in, shared by all that shows it. */
import { useEffect, useState } from "preact/hooks";
import { call, isSignedOut, session, type Refusal } from "./api";

export interface Label { key: string; value: string; scope: "public" | "private" }
export interface Phone { country: string; number: string; validated_at: string | null }
export interface Profile {
  first_name: string | null; last_name: string | null; dob: string | null; address: string | null; postcode: string | null;
  city: string | null; country: string | null; state: "drafted" | "submitted" | "verified" | "rejected";
}
export interface Me {
  email: string; uid: string; role: string; level: number; otp: boolean; state: string; data: string | null; created_at: string;
  referral_uid: string | null; labels: Label[]; phones: Phone[]; profiles: Profile[];
}

let me: Me | null = null;
const listeners = new Set<() => void>();

/** The account, or null while nobody is known to be signed in. */
export function useMe(): Me | null {
  const [, draw] = useState(0);
  useEffect(() => {
    const l = () => draw((n) => n + 1);
    listeners.add(l);
    return () => void listeners.delete(l);
  }, []);
  return me;
}

export function setMe(to: Me | null): void {
  me = to;
  listeners.forEach((l) => l());
}

/** Reads the account anew: null when nobody is signed in. */
export async function loadMe(): Promise<Me | null> {
  try {
    if (!me && !(await session()).active) return null;
    setMe(await call<Me>("GET", "/resource/users/me"));
  } catch (e) {
    if (!isSignedOut(e)) throw e;
    setMe(null);
  }
  return me;
}

/** Keeps a language with the account, whose mails are then in it. What else the account's data holds stays. */
export async function keepLanguage(tag: string): Promise<void> {
  let data: unknown;
  try {
    data = JSON.parse(me?.data ?? "{}");
  } catch {
    return;
  }
  if (!me || typeof data !== "object" || data === null || Array.isArray(data)) return;
  setMe(await call<Me>("PUT", "/resource/users/me", { data: JSON.stringify({ ...data, language: tag }) }));
}

/**
 * Goes to the sign-in page, in the place of the page that is shown, and from there back to that one. refused is why, where a session has
 * ended.
 */
export function signInAgain(refused?: Refusal): void {
  setMe(null);
  const query = new URLSearchParams({ rd: location.pathname + location.search });
  if (refused) query.set("error", refused.codes[0]!);
  location.replace("/accounts/signin?" + query);
}

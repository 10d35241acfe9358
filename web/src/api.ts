/** The REST API as pages call it. Pages hold no token: who one is stands in the cookie, and the CSRF token is asked for. */
import { config } from "./config";

/** An answer that is not what was asked for: the codes of the API, or one of ours where the API did not answer. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly codes: string[],
    /** Seconds after which another attempt makes sense. */
    readonly retryAfter = 0,
    /** Under which the server's log tells of it. */
    readonly request = "",
  ) {
    super(codes.join(", "));
  }

  has(...codes: string[]): boolean {
    return codes.some((c) => this.codes.includes(c));
  }
}

/** Our own codes: there was no answer, or one that is not the API's. */
export const offline = "portal.offline";
export const unexpected = "portal.unexpected";

/** Codes that say that nobody is signed in (any more). */
const gone = ["authz.invalid_session", "authz.client_session_mismatch", "authz.user_not_active", "jwt.decode_and_verify"];

/** Reports whether the refusal says that nobody is signed in. */
export const isSignedOut = (e: unknown): e is Refusal => e instanceof Refusal && e.status === 401 && e.has(...gone);

export type Values = Record<string, unknown>;

interface Session {
  active: boolean;
  uid?: string;
  email?: string;
  csrf_token?: string;
}

let csrf: string | undefined;
let uid: string | undefined;

/** Whose session it is here, as far as that is known. */
export const whose = (): string | undefined => uid;

const signedIn = "barong.signedin";

/** Tells the other tabs who is signed in: the id, or nothing. */
function announce(who: string): void {
  try {
    if (localStorage.getItem(signedIn) !== who) localStorage.setItem(signedIn, who);
  } catch {
    // The next call of another tab tells it.
  }
}

/**
 * Hears of it. A page on which somebody's data stand is loaded anew when they are not signed in any more, and the sign-in page goes on
 * by itself.
 */
export function hearTabs(): void {
  window.addEventListener("storage", (e) => {
    if (e.key !== signedIn || e.newValue === null) return;
    if (e.newValue === (uid ?? "")) csrf = undefined; // of another session
    else if (uid !== undefined || location.pathname === "/accounts/signin") location.reload();
  });
}

/** Who is signed in here. Strangers get an answer too. */
export async function session(): Promise<Session> {
  const s = await call<Session>("GET", "/identity/sessions/current");
  csrf = s.csrf_token;
  if (s.active) uid ??= s.uid;
  if (s.active) announce(s.uid!);
  return s;
}

/** Keeps the token of a session that was just opened. */
export function opened(user: { uid: string; csrf_token?: string }): void {
  csrf = user.csrf_token;
  uid = user.uid;
  announce(uid);
}

/** Forgets the token of the session that was ended. */
export function closed(): void {
  csrf = uid = undefined;
  announce("");
}

export interface Page<Row> {
  rows: Row[];
  total: number;
  page: number;
  perPage: number;
}

/** Calls the API: parameters go into the query of a GET, else into the body as JSON, or as a form where there are files. */
export async function call<T = unknown>(method: string, path: string, params?: Values | FormData): Promise<T> {
  return (await answered(method, path, params)).body as T;
}

/** Calls for a page of a list. */
export async function page<Row>(path: string, query: Values = {}): Promise<Page<Row>> {
  const { body, headers } = await answered("GET", path, query);
  const number = (name: string) => Number(headers.get(name) ?? "") || 0;
  return { rows: body as Row[], total: number("Total"), page: number("Page"), perPage: number("Per-Page") };
}

/** The address of a path of the API. */
export const address = (path: string, query: Values = {}): string => {
  const text = new URLSearchParams(
    Object.entries(query).flatMap(([k, v]) => (v === undefined || v === null || v === "" ? [] : [[k, String(v)]])),
  ).toString();
  return config.api + path + (text ? "?" + text : "");
};

/**
 * Fetches the CSRF token. The check asks for that first, so that a session that has ended would be told of by its lack. Where
 * somebody else has signed in meanwhile, in another tab, the page is loaded anew: what it shows is not theirs to change.
 */
async function stillSignedIn(): Promise<void> {
  const s = await session();
  if (!s.active) throw new Refusal(401, ["authz.invalid_session"]);
  if (uid !== undefined && s.uid !== uid) {
    location.reload();
    await new Promise(() => {});
  }
}

interface Answer {
  status: number;
  headers: { get(name: string): string | null };
  text: string;
}

async function answered(method: string, path: string, params?: Values | FormData): Promise<Answer & { body: unknown }> {
  const guarded = method !== "GET" && !path.startsWith("/identity/");
  if (guarded && csrf === undefined) await stillSignedIn();
  try {
    return read(await send(method, path, params));
  } catch (e) {
    if (!guarded || !(e instanceof Refusal) || !e.has("authz.csrf_token_mismatch", "authz.missing_csrf_token")) throw e;
    await stillSignedIn(); // another tab may have signed in anew
    return read(await send(method, path, params));
  }
}

async function send(method: string, path: string, params?: Values | FormData): Promise<Answer> {
  const headers: Record<string, string> = { Accept: "application/json" };
  const init: RequestInit = { method, headers, credentials: "same-origin", cache: "no-store" };
  if (method !== "GET") {
    if (csrf !== undefined && !path.startsWith("/identity/")) headers["X-CSRF-Token"] = csrf;
    if (params instanceof FormData) {
      init.body = params;
    } else {
      headers["Content-Type"] = "application/json";
      init.body = JSON.stringify(params ?? {});
    }
  }
  try {
    const answer = await fetch(method === "GET" ? address(path, params as Values) : config.api + path, init);
    return { status: answer.status, headers: answer.headers, text: await answer.text() };
  } catch {
    throw new Refusal(0, [offline]);
  }
}

function read(a: Answer): Answer & { body: unknown } {
  let body: unknown = null;
  try {
    body = a.text === "" ? null : JSON.parse(a.text);
  } catch {
    if (a.status < 400) throw new Refusal(a.status, [unexpected]);
  }
  if (a.status >= 200 && a.status < 300) return { ...a, body };
  const said = body as { errors?: string[]; error?: string } | null;
  const codes = Array.isArray(said?.errors) && said.errors.length > 0 ? said.errors : [a.status >= 500 ? "authz.unavailable" : unexpected];
  throw new Refusal(a.status, codes, Number(a.headers.get("Retry-After") ?? "") || 0, a.headers.get("X-Request-Id") ?? "");
}

/** Uploads a form with files, and tells how far it is: from 0 to 1. */
export async function upload(path: string, form: FormData, progress: (done: number) => void): Promise<void> {
  const once = () =>
    new Promise<Answer>((resolve, reject) => {
      const x = new XMLHttpRequest();
      x.open("POST", config.api + path);
      x.setRequestHeader("Accept", "application/json");
      if (csrf !== undefined) x.setRequestHeader("X-CSRF-Token", csrf);
      x.upload.onprogress = (e) => e.lengthComputable && progress(e.loaded / e.total);
      x.onload = () => resolve({ status: x.status, headers: { get: (name) => x.getResponseHeader(name) }, text: x.responseText });
      x.onerror = () => reject(new Refusal(0, [offline]));
      x.send(form);
    });
  await stillSignedIn(); // a file of megabytes is not sent twice for a token that has changed
  read(await once());
}

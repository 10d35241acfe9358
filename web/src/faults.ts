/** Codes of refusals in words. Catalogues hold a text for each code of the API ("code.…"); families of codes share one. */
import { hasWords, say, type Key } from "./i18n";
import { offline, Refusal, unexpected } from "./api";

/**
 * A code, what it says to people in the language that is shown when it is read, and the parameter that it is about, if it is
 * about one.
 */
export interface Fault {
  readonly code: string;
  readonly text: string;
  readonly field?: string;
}

/** A fault that is put into words whenever it is shown: a refusal may stand there when another language is chosen. */
const fault = (code: string, text: () => string, field?: string): Fault => ({
  code,
  get text() {
    return text();
  },
  ...(field ? { field } : {}),
});

/** The name of a parameter for people: its label where the catalogue has one. */
const fieldName = (param: string): string => (hasWords("field." + param) ? say("field." + param) : param);

/** Parameters that codes name otherwise. */
const aliases: Record<string, string> = { pass_token: "reset_password_token", totp: "totp_code", number: "phone_number" };

/** Codes about one parameter that do not name it. */
const about: Record<string, string> = {
  "identity.session.missing_otp": "otp_code",
  "identity.session.invalid_otp": "otp_code",
  "identity.user.passwords_doesnt_match": "confirm_password",
  "identity.user.invalid_referral_format": "refid",
  "identity.user.referral_doesnt_exist": "refid",
  "resource.password.doesnt_match": "confirm_password",
  "resource.password.prev_pass_not_correct": "old_password",
  "resource.password.no_change_provided": "new_password",
  "resource.otp.invalid": "code",
  "resource.api_key.invalid_totp": "totp_code",
  "resource.api_key.missing_totp": "totp_code",
  "resource.user.invalid_password": "password",
  "resource.user.invalid_otp": "otp_code",
  "resource.user.missing_otp_code": "otp_code",
  "resource.phone.invalid_num": "phone_number",
  "resource.phone.exists": "phone_number",
  "resource.phone.number_exist": "phone_number",
  "resource.phone.num_not_reachable": "phone_number",
  "resource.phone.num_not_valid": "phone_number",
  "resource.phone.unsubscribed_recipient": "phone_number",
  "resource.phone.verification_invalid": "verification_code",
  "resource.documents.already_expired": "doc_expire",
  "resource.documents.expire_not_a_date": "doc_expire",
  "resource.documents.invalid_format": "doc_expire",
};

/** Reads a code: in words, and what it is about. */
export function explain(code: string): Fault {
  const [, head = "", last = ""] = /^(.*)\.([^.]*)$/.exec(code) ?? [];
  const param = /^(?:missing|empty|non_string|non_integer|non_boolean|invalid)_(\w+)$/.exec(last)?.[1];
  const own = about[code] ?? (param && (aliases[param] ?? param)) ?? (head.includes(".") ? undefined : (aliases[head] ?? head));
  const labelled = (key: string, param: string) => fault(code, () => say(key, { field: fieldName(param) }), own);

  if (hasWords("code." + code)) return fault(code, () => say("code." + code), own);
  if (code.startsWith("jwt.decode_and_verify.")) return fault(code, () => say("code.jwt.decode_and_verify.*"));
  if (code.startsWith("authz.restrict.")) return fault(code, () => say("code.authz.restrict.*"));
  if (code.startsWith("country.")) return fault(code, () => say("code.country.*"), "country");
  if (code.startsWith("upload.") && !hasWords("detail." + last)) return fault(code, () => say("detail." + sentence(code)), "upload");
  if (/^(missing|empty)_/.test(last)) return labelled("detail.blank", own ?? last);
  if (own && hasWords("detail." + last)) return labelled("detail." + last, own);
  return fault(code, () => say("code.*"));
}

/** The fault that the address tells of (?error=CODE): whoever was sent here was refused elsewhere. */
export function told(query: URLSearchParams): Fault[] {
  const code = query.get("error") ?? "";
  return /^[a-z0-9_]+(\.[a-z0-9_]+){0,3}$/.test(code) && code.length <= 80 ? [explain(code)] : [];
}

/** The rule that a sentence of the original's about a file tells of. */
const sentence = (code: string): string =>
  code.includes("less than") ? "too_big" : code.includes("greater than") ? "too_small" : "invalid_extension";

/** Where one gets on after a refusal, where that is another page: its address, and the key of what leads there. */
export const onward: Record<string, { href: string; words: Key }> = {
  "email.taken": { href: "/accounts/forgot", words: "signin.forgot" },
  "identity.provider.no_account": { href: "/accounts/signup", words: "signup.link" },
  "resource.api_key.2fa_disabled": { href: "/accounts/security", words: "security.title" },
  "authz.disabled_2fa": { href: "/accounts/security", words: "security.title" },
  "resource.password.prev_pass_not_correct": { href: "/accounts/forgot", words: "signin.forgot" },
  "resource.user.invalid_password": { href: "/accounts/forgot", words: "signin.forgot" },
  "resource.provider.last_way_in": { href: "/accounts/forgot", words: "signin.forgot" },
};

/** What a failure says to people: one fault a code, in the order of the answer. */
export function faults(e: unknown): Fault[] {
  if (!(e instanceof Refusal)) {
    console.error(e);
    return [fault(unexpected, () => say("code.portal.unexpected"))];
  }
  const list = e.codes.map((code) => {
    if (code === offline || code === unexpected) return fault(code, () => say("code." + code));
    if (code === "request.rate_limited" && e.retryAfter > 0) return fault(code, () => say("code.request.rate_limited.after", { time: wait(e.retryAfter) }));
    return explain(code);
  });
  // A file that is refused is not there either. A parameter that is both missing and empty is one thing to mend.
  const shown = list.filter((f, i) => list.findIndex((g) => g.text === f.text) === i && !(f.code === "upload.blank" && list.some((g) => g.code !== f.code && g.field === "upload")));
  const last = shown.at(-1)!;
  if (e.status >= 500 && e.request) shown[shown.length - 1] = fault(last.code, () => last.text + " " + say("fault.request", { id: e.request }), last.field);
  return shown;
}

function wait(seconds: number): string {
  const unit = (n: number, unit: string) => new Intl.NumberFormat(document.documentElement.lang, { style: "unit", unit, unitDisplay: "long" }).format(n);
  return seconds < 90 ? unit(seconds, "second") : unit(Math.ceil(seconds / 60), "minute");
}

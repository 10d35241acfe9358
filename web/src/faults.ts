/** Codes of refusals in words. Catalogues hold a text for each code of the API ("code.…"); families of codes share one. */
import { hasWords, say } from "./i18n";
import { offline, Refusal, unexpected } from "./api";

/** A code, what it says to people, and the parameter that it is about, if it is about one. */
export interface Fault {
  code: string;
  text: string;
  field?: string;
}

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
  const fault = (text: string): Fault => ({ code, text, ...(own ? { field: own } : {}) });

  if (hasWords("code." + code)) return fault(say("code." + code));
  if (code.startsWith("jwt.decode_and_verify.")) return { code, text: say("code.jwt.decode_and_verify.*") };
  if (code.startsWith("authz.restrict.")) return { code, text: say("code.authz.restrict.*") };
  if (code.startsWith("country.")) return { code, field: "country", text: say("code.country.*") };
  if (code.startsWith("upload.") && !hasWords("detail." + last)) return { code, field: "upload", text: say("detail." + sentence(code)) };
  if (/^(missing|empty)_/.test(last)) return fault(say("detail.blank", { field: fieldName(own ?? last) }));
  if (own && hasWords("detail." + last)) return fault(say("detail." + last, { field: fieldName(own) }));
  return { code, text: say("code.*") };
}

/** The fault that the address tells of (?error=CODE): whoever was sent here was refused elsewhere. */
export function told(query: URLSearchParams): Fault[] {
  const code = query.get("error") ?? "";
  return /^[a-z0-9_]+(\.[a-z0-9_]+){0,3}$/.test(code) && code.length <= 80 ? [explain(code)] : [];
}

/** The rule that a sentence of the original's about a file tells of. */
const sentence = (code: string): string =>
  code.includes("less than") ? "too_big" : code.includes("greater than") ? "too_small" : "invalid_extension";

/** What a failure says to people: one fault a code, in the order of the answer. */
export function faults(e: unknown): Fault[] {
  if (!(e instanceof Refusal)) {
    console.error(e);
    return [{ code: unexpected, text: say("code.portal.unexpected") }];
  }
  const list = e.codes.map((code) => {
    const fault = code === offline || code === unexpected ? { code, text: say("code." + code) } : explain(code);
    if (code === "request.rate_limited" && e.retryAfter > 0) fault.text = say("code.request.rate_limited.after", { time: wait(e.retryAfter) });
    return fault;
  });
  // A file that is refused is not there either. A parameter that is both missing and empty is one thing to mend.
  const shown = list.filter((f, i) => list.findIndex((g) => g.text === f.text) === i && !(f.code === "upload.blank" && list.some((g) => g.code !== f.code && g.field === "upload")));
  if (e.status >= 500 && e.request) shown.at(-1)!.text += " " + say("fault.request", { id: e.request });
  return shown;
}

function wait(seconds: number): string {
  const unit = (n: number, unit: string) => new Intl.NumberFormat(document.documentElement.lang, { style: "unit", unit, unitDisplay: "long" }).format(n);
  return seconds < 90 ? unit(seconds, "second") : unit(Math.ceil(seconds / 60), "minute");
}

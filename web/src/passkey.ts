/** Passkeys: the JSON forms of the API, and the browser's calls. */
import { call, Refusal } from "./api";

interface Begun {
  flow: string;
  publicKey: unknown;
}

/** Reports whether this browser has passkeys. */
export const hasPasskeys = (): boolean => typeof PublicKeyCredential === "function";

/** Reports whether this browser offers passkeys where somebody begins to type their address. */
export const offersPasskeys = async (): Promise<boolean> =>
  hasPasskeys() && ((await PublicKeyCredential.isConditionalMediationAvailable?.()) ?? false);

const bytes = (text: string): ArrayBuffer =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0)).buffer;
const text = (b: ArrayBuffer): string =>
  btoa(String.fromCharCode(...new Uint8Array(b))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

// What parse…FromJSON and toJSON do, for browsers that lack them.
function requestOptions(o: any): PublicKeyCredentialRequestOptions {
  if (PublicKeyCredential.parseRequestOptionsFromJSON) return PublicKeyCredential.parseRequestOptionsFromJSON(o);
  return { ...o, challenge: bytes(o.challenge), allowCredentials: (o.allowCredentials ?? []).map((c: any) => ({ ...c, id: bytes(c.id) })) };
}

function creationOptions(o: any): PublicKeyCredentialCreationOptions {
  if (PublicKeyCredential.parseCreationOptionsFromJSON) return PublicKeyCredential.parseCreationOptionsFromJSON(o);
  return {
    ...o,
    challenge: bytes(o.challenge),
    user: { ...o.user, id: bytes(o.user.id) },
    excludeCredentials: (o.excludeCredentials ?? []).map((c: any) => ({ ...c, id: bytes(c.id) })),
  };
}

function json(c: PublicKeyCredential): unknown {
  if (typeof c.toJSON === "function") return c.toJSON();
  const r = c.response as any;
  const response: Record<string, unknown> = {};
  for (const name of ["clientDataJSON", "authenticatorData", "signature", "userHandle", "attestationObject"]) {
    if (r[name]) response[name] = text(r[name]);
  }
  if (r.getTransports) response["transports"] = r.getTransports();
  return {
    id: c.id, rawId: text(c.rawId), type: c.type, response,
    authenticatorAttachment: c.authenticatorAttachment, clientExtensionResults: c.getClientExtensionResults(),
  };
}

/** The ways in which a browser ends a ceremony, as codes of ours. */
function refused(e: unknown): unknown {
  if (!(e instanceof DOMException)) return e;
  if (e.name === "InvalidStateError") return new Refusal(0, ["portal.passkey_known"]);
  if (e.name === "SecurityError") return new Refusal(0, ["portal.passkey_domain"]);
  return new Refusal(0, ["portal.passkey_cancelled"]);
}

/** Signs in by passkey. Without a mediation the browser asks at once; "conditional" waits in the form. */
export async function signInByPasskey<User>(signal: AbortSignal, mediation?: CredentialMediationRequirement): Promise<User> {
  const begun = await call<Begun>("POST", "/identity/sessions/passkey/options");
  let credential;
  try {
    credential = (await navigator.credentials.get({
      publicKey: requestOptions(begun.publicKey),
      signal,
      ...(mediation ? { mediation } : {}),
    })) as PublicKeyCredential;
  } catch (e) {
    throw signal.aborted ? e : refused(e);
  }
  try {
    return await call<User>("POST", "/identity/sessions/passkey", { flow: begun.flow, credential: json(credential) });
  } catch (e) {
    if (e instanceof Refusal && e.has("identity.session.invalid_passkey")) forget(begun.publicKey, credential.id);
    throw e;
  }
}

/** Has the device drop a passkey that the service does not know: it may have been removed here. */
function forget(options: any, credentialId: string): void {
  const signal = (PublicKeyCredential as any).signalUnknownCredential;
  if (signal && options.rpId) signal.call(PublicKeyCredential, { rpId: options.rpId, credentialId }).catch(() => {});
}

/** Makes a passkey for who is signed in. proof is the password, or a code of the second factor. */
export async function addPasskey(name: string, proof: Record<string, string>): Promise<void> {
  const begun = await call<Begun>("POST", "/resource/passkeys/options", proof);
  let credential;
  try {
    credential = (await navigator.credentials.create({ publicKey: creationOptions(begun.publicKey) })) as PublicKeyCredential;
  } catch (e) {
    throw refused(e);
  }
  await call("POST", "/resource/passkeys", { flow: begun.flow, credential: json(credential), name });
}

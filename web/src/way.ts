/** The way there and back: the page that somebody wanted before they had to sign in. Where it may lead is the server's to judge. */

const store = "barong.wanted";
const went = "barong.went";

/**
 * Goes to the page that was wanted, by way of the server, which follows it only where it may lead. It takes the place of the page that is shown:
 * the browser's way back would lead from the one to the other again.
 */
export function goOn(rd: string | null): void {
  try {
    sessionStorage.setItem(went, JSON.stringify({ rd, at: Date.now() }));
  } catch {
    // Not kept: a page that sends its visitor straight back is then not noticed.
  }
  location.replace("/accounts/continue" + (rd ? "?rd=" + encodeURIComponent(rd) : ""));
}

/** Reports whether the page that was wanted has just sent its visitor back: going there again would go on for ever. */
export function bounced(rd: string | null): boolean {
  try {
    const last = JSON.parse(sessionStorage.getItem(went) ?? "null") as { rd: string | null; at: number } | null;
    return last !== null && last.rd === rd && Date.now() - last.at < 10_000;
  } catch {
    return false;
  }
}

/** Keeps what was wanted until the mail that comes first is read, for a day. */
export function keepWanted(rd: string | null): void {
  try {
    if (rd) localStorage.setItem(store, JSON.stringify({ rd, at: Date.now() }));
  } catch {
    // Not kept: the link in the mail leads to the account.
  }
}

/** What was kept, once. */
export function takeWanted(): string | null {
  try {
    const kept = JSON.parse(localStorage.getItem(store) ?? "null") as { rd: string; at: number } | null;
    localStorage.removeItem(store);
    return kept && Date.now() - kept.at < 86_400_000 ? kept.rd : null;
  } catch {
    return null;
  }
}

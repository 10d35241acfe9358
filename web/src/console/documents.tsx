/** /console/documents: those who wait, the longest waiting first; one key press decides. */
import { useEffect, useRef, useState } from "preact/hooks";
import { call, page } from "../api";
import { Action, echoes } from "../ui/form";
import { Show, useLoad } from "../ui/load";
import { can } from "./abilities";
import { changed, Changes } from "./changes";
import { Papers } from "./papers";
import { ProfileFacts, type Whole } from "./user";
import { w } from "./words";

type Verdict = "verified" | "rejected";

const decide = (uid: string, value: Verdict | "pending") => {
  const label = { uid, key: "document", scope: "private", value };
  return can("PUT /admin/users/labels") ? call("PUT", "/admin/users/labels", label) : call("POST", "/admin/users/labels/update", label);
};

const batch = 25;

export function Documents() {
  const queue = useLoad(() => page<Whole>("/admin/users/documents/pending", { extended: true, limit: batch }));
  const [done, setDone] = useState<string[]>([]);
  const [at, setAt] = useState(0);
  const box = useRef<HTMLElement>(null);
  const mayDecide = can("PUT /admin/users/labels") || can("POST /admin/users/labels/update");

  const left = (queue.value?.rows ?? []).filter((u) => !done.includes(u.uid));
  const index = Math.min(at, Math.max(0, left.length - 1));
  const user = left[index];
  const waiting = Math.max(0, (queue.value?.total ?? 0) - done.length);

  // What was read is decided, and more may wait.
  useEffect(() => {
    if (queue.value && queue.value.rows.length > 0 && left.length === 0 && !queue.busy) void queue.again().then(() => (setDone([]), setAt(0)));
  }, [left.length]);
  useEffect(() => box.current?.focus({ preventScroll: true }), [user?.uid]);

  const verdict = async (value: Verdict) => {
    if (!user || !mayDecide) return;
    const u = user;
    await decide(u.uid, value);
    setDone((d) => [...d, u.uid]);
    await changed({
      what: w("c.documents.of", { email: u.email }), before: w("c.documents.pending"), after: w(`c.documents.${value}`),
      undo: async () => {
        await decide(u.uid, "pending");
        setDone((d) => d.filter((uid) => uid !== u.uid));
        await queue.again();
      },
    });
  };
  const move = (by: number) => setAt(Math.max(0, Math.min(left.length - 1, index + by)));

  const pressing = useRef(false);
  const press = (e: KeyboardEvent) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target !== box.current) return; // keys are typed elsewhere, and mean other things there
    const act: Record<string, () => Promise<void> | void> = {
      v: () => verdict("verified"), r: () => verdict("rejected"), n: () => move(1), p: () => move(-1), ArrowRight: () => move(1), ArrowLeft: () => move(-1),
    };
    const run = act[e.key.length === 1 ? e.key.toLowerCase() : e.key];
    if (!run || pressing.current) return;
    e.preventDefault();
    if (echoes(e)) return; // a key that is held down would judge people whom nobody has looked at
    pressing.current = true;
    void Promise.resolve(run()).catch(() => queue.again()).finally(() => (pressing.current = false));
  };

  return (
    <>
      <Show of={queue}>
        {() =>
          !user ? (
            <p class="muted" role="status">{w("c.documents.none")}</p>
          ) : (
            <>
              <p class="muted" role="status">{w("c.documents.waiting", { n: waiting })}</p>
              <section class="review" ref={box} tabIndex={0} onKeyDown={press} aria-labelledby="review" aria-describedby={mayDecide ? "review-keys" : undefined}>
                <h2 id="review">
                  {can("GET /admin/users/{uid}") ? <a href={"/console/users/" + encodeURIComponent(user.uid)}>{user.email}</a> : user.email}
                </h2>
                {mayDecide && <p class="muted" id="review-keys">{w("c.documents.keys")} <kbd>V</kbd> {w("c.documents.verify")}, <kbd>R</kbd> {w("c.documents.reject")}, <kbd>N</kbd> {w("c.documents.next")}, <kbd>P</kbd> {w("c.documents.prev")}.</p>}
                <div class="beside">
                  <div>{user.documents.length > 0 ? <Papers of={user.documents} /> : <p class="muted">{w("c.papers.none")}</p>}</div>
                  <div>
                    <h3>{w("c.profile")}</h3>
                    {user.profiles.length > 0 ? <ProfileFacts of={user.profiles.at(-1)!} /> : <p class="muted">{w("c.profile.none")}</p>}
                  </div>
                </div>
              </section>
              <div class="actions">
                {mayDecide && (
                  <>
                    <Action label={w("c.documents.verify")} hidden={user.email} run={() => verdict("verified")} />
                    <Action danger label={w("c.documents.reject")} hidden={user.email} run={() => verdict("rejected")} />
                  </>
                )}
                <button type="button" class="quiet" disabled={index === 0} onClick={() => move(-1)}>{w("c.documents.prev")}</button>
                <button type="button" class="quiet" disabled={index >= left.length - 1} onClick={() => move(1)}>{w("c.documents.next")}</button>
              </div>
            </>
          )
        }
      </Show>
      <Changes />
    </>
  );
}

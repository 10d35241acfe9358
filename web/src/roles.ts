import { useEffect, useState } from "preact/hooks";
import { call } from "./api";
import { config } from "./config";
import { useMe } from "./me";

/** Reports whether there is something in the console for who is signed in: their role may make calls for staff. */
export function useConsole(): boolean {
  const me = useMe();
  const [calls, set] = useState<string[]>([]);
  const asks = config.console && me !== null && me.role !== "member";
  useEffect(() => {
    if (asks) call<{ calls: string[] }>("GET", "/resource/abilities").then((a) => set(a.calls), () => {}); // then nothing is offered
  }, [asks && me.uid]);
  return asks && calls.length > 0;
}

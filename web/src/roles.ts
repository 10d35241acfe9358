import type { Me } from "./me";

/** Reports whether there may be something in the console for the account: plain members have nothing to do there. */
export const mayUseConsole = (me: Me): boolean => me.role !== "member";

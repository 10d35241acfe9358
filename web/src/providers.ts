/** Other providers with which people sign in. */
import { call, Refusal } from "./api";

export interface Provider {
  id: string;
  name: string;
}

/** Those that there are; none where the service knows no providers. */
export const providers = (): Promise<Provider[]> =>
  call<Provider[]>("GET", "/identity/providers").catch((e) => {
    if (e instanceof Refusal && e.status === 404) return [];
    throw e;
  });

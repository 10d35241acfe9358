/** What the API tells clients about itself, read once. */
import { call } from "./api";

export interface Configs {
  captcha_type: string;
  captcha_id?: string;
  /** Operations that a captcha guards; absent where the API does not tell. */
  captcha_endpoints?: string[];
  phone_verification_type: string;
  password_min_entropy: number;
}

let read: Promise<Configs> | undefined;

export const configs = (): Promise<Configs> =>
  (read ??= call<Configs>("GET", "/identity/configs").catch((e) => {
    read = undefined;
    throw e;
  }));

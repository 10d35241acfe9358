/** What the server tells the pages: the JSON of `<meta name="barong">`. */
export interface Config {
  /** Name of the service. */
  name: string;
  /** Published prefix of the REST API, without a slash at its end. */
  api: string;
  /** There is a console to link to. */
  console: boolean;
  passkeys: boolean;
  phones: boolean;
  /** Address of the operator's logo, if there is one. */
  logo?: string;
  languages: Language[];
}

export interface Language {
  /** BCP 47 tag. */
  tag: string;
  /** Its own name for itself. */
  name: string;
  direction: "ltr" | "rtl";
  /** Catalogues to lay over English, by application. */
  portal: string[];
  console: string[];
}

export const config: Config = JSON.parse(document.querySelector<HTMLMetaElement>('meta[name="barong"]')!.content);

/** A text to keep, with a button that copies it. */
import { useState } from "preact/hooks";
import { t } from "../i18n";

export function Copy({ text, label, block = false }: { text: string; label: string; block?: boolean }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 3000);
  };
  return (
    <div class="copy">
      <span class="label">{label}</span>
      {block ? <pre tabIndex={0} role="region" aria-label={label}><code>{text}</code></pre> : <code>{text}</code>}
      {navigator.clipboard && (
        <button type="button" class="quiet" onClick={() => void copy()}>
          {t("copy")}<span class="hidden"> {label}</span>
        </button>
      )}
      <span role="status" class="muted">{copied ? t("copied") : ""}</span>
    </div>
  );
}

/** A new password, with how hard it is to guess. */
import { useEffect, useState } from "preact/hooks";
import { call } from "../api";
import { configs } from "../configs";
import { t } from "../i18n";
import { Field } from "./form";

export function NewPassword({ name, label }: { name: string; label: string }) {
  const [text, setText] = useState("");
  const [strength, setStrength] = useState<{ bits: number; enough: boolean; of: number }>();
  useEffect(() => {
    if (text === "") return setStrength(undefined);
    let current = true;
    const timer = setTimeout(async () => {
      try {
        const [{ entropy }, c] = await Promise.all([call<{ entropy: number }>("POST", "/identity/password/validate", { password: text }), configs()]);
        if (current) setStrength({ bits: entropy, enough: entropy >= c.password_min_entropy, of: c.password_min_entropy * 2 });
      } catch {
        if (current) setStrength(undefined); // whether it is good enough is told when it is sent
      }
    }, 350);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [text]);
  const word = strength && t(!strength.enough ? "strength.weak" : strength.bits < strength.of * 0.75 ? "strength.good" : "strength.strong");
  return (
    <div class="newpassword">
      <Field name={name} type="password" label={label} required autocomplete="new-password" onInput={setText} hint={t("password.rules")} also="password" />
      <div class={"strength" + (strength ? (strength.enough ? " enough" : " weak") : "")}>
        <meter min={0} max={strength?.of ?? 1} low={(strength?.of ?? 1) / 2} high={(strength?.of ?? 1) / 2} optimum={strength?.of ?? 1} value={strength ? Math.max(0, Math.min(strength.bits, strength.of)) : 0} aria-label={t("strength.label")} />
        <span role="status">{word ?? ""}</span>
      </div>
    </div>
  );
}

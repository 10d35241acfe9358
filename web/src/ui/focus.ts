/**
 * Where the keyboard is. What has the focus may go away: a row that was removed, a button that is not offered any more. A browser
 * then begins at the top of the page; here the heading above what is gone takes the focus.
 */

/** How long what is drawn anew may take to ask for the focus itself, in milliseconds. */
const turn = 150;

/** Watches over it, until the end of the page. */
export function keepFocus(): void {
  let last: Element | null = null;
  let around: Element[] = []; // it, the innermost first
  document.addEventListener("focusin", (e) => {
    last = e.target as Element;
    around = [];
    for (let up = last.parentElement; up && up !== document.body; up = up.parentElement) around.push(up);
  });
  document.addEventListener("focusout", (e) => {
    const left = e.target as Element;
    queueMicrotask(() => left.isConnected && left === last && document.activeElement === document.body && (last = null)); // by a click on nothing
  });
  let waits = false;
  new MutationObserver(() => {
    if (waits || !last || last.isConnected || document.activeElement !== document.body) return;
    waits = true;
    setTimeout(() => {
      waits = false;
      if (last?.isConnected !== false || document.activeElement !== document.body) return;
      const part = around.find((e) => e.isConnected);
      const heading = (part?.closest("section") ?? document).querySelector<HTMLElement>("h2, h1") ?? document.querySelector<HTMLElement>("h1");
      if (!heading) return;
      heading.tabIndex = -1;
      heading.focus({ preventScroll: true });
    }, turn);
  }).observe(document.body, { childList: true, subtree: true });
}

// What the pages need beside htmx: times in the viewer's zone, whether the page is live, and
// signing in again when the session has ended.
"use strict";
(() => {
  const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
  const steps = [[60, "second", 1], [3600, "minute", 60], [86400, "hour", 3600], [Infinity, "day", 86400]];

  function age(at) {
    const seconds = (at - Date.now()) / 1000;
    const [, unit, size] = steps.find(([limit]) => Math.abs(seconds) < limit);
    return relative.format(Math.round(seconds / size), unit);
  }

  function tellTimes(root) {
    for (const one of root.querySelectorAll("time[datetime]")) {
      const at = new Date(one.dateTime);
      if (isNaN(at)) continue;
      one.title = one.dateTime;
      one.textContent = `${absolute.format(at)} (${age(at)})`;
    }
  }

  function sayLive(text, good) {
    const place = document.getElementById("live");
    if (!place || place.textContent === text) return;
    place.textContent = text;
    place.classList.toggle("bad", !good);
  }

  tellTimes(document);
  setInterval(() => tellTimes(document), 15000);
  document.body.addEventListener("htmx:load", (e) => tellTimes(e.detail.elt.parentElement || document));
  document.body.addEventListener("htmx:sseMessage", (e) => tellTimes(e.target));

  const sources = new Set();
  document.body.addEventListener("htmx:sseOpen", (e) => { sources.add(e.detail.source); sayLive("live", true); });
  document.body.addEventListener("htmx:sseError", () => {
    sayLive("not live: trying to connect again", false);
    // A session that has ended answers a page's event source with the sign-in page.
    fetch(location.href, { method: "HEAD" }).then((r) => { if (r.status === 401) location.reload(); }, () => {});
  });
  document.body.addEventListener("htmx:responseError", (e) => { if (e.detail.xhr.status === 401) location.reload(); });

  // A page that nobody sees for a minute gives its connection back: browsers have six for a host.
  let hidden = 0, closed = false;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hidden);
    if (!document.hidden) {
      if (closed) location.reload();
      return;
    }
    hidden = setTimeout(() => { closed = sources.size > 0; sources.forEach((s) => s.close()); }, 60000);
  });
})();

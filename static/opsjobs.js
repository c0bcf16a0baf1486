// Refreshes pages, opens dialogs, counts selections and reads keys. Without it pages work, but do not refresh.
"use strict";
(() => {
  const page = document.documentElement;
  const find = (id) => document.getElementById(id);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const on = (name, hear, target = document) => target.addEventListener(name, hear);
  const [dialog, toast, live] = [find("dialog"), find("toast"), find("live")];

  // --- times: the server sends moments in UTC; here ages are updated, and times are written in the preferred zone
  let skew = 0; // the server's clock minus this one, in ms; differences that a slow answer explains are ignored
  const tune = (said) => [skew = Date.parse(said) - Date.now(), skew = Math.abs(skew) > 3000 ? skew : 0];
  const now = () => new Date(Date.now() + skew);
  const isLocal = () => page.dataset.zone === "local";
  const stamp = (moment) => isLocal() ? moment.toLocaleString("sv") : moment.toISOString().slice(0, 19).replace("T", " ");
  const sizes = [[60, 1, "s"], [3600, 60, "min"], [48 * 3600, 3600, "h"], [Infinity, 86400, "d"]];
  function span(seconds) {
    const [, size, unit] = sizes.find(([limit]) => seconds < limit);
    return `${Math.floor(seconds / size)} ${unit}`;
  }
  const words = {
    ago: (passed) => Math.abs(passed) < 1 ? "now" : passed > 0 ? `${span(passed)} ago` : `in ${span(-passed)}`,
    age: (passed) => span(Math.max(0, passed)),
    for: (passed) => `for ${span(Math.max(0, passed))}`,
    moment: (_, text) => `${text} ${isLocal() ? "local time" : "UTC"}`,
    clock: (_, text) => text.slice(0, 10) === stamp(now()).slice(0, 10) ? text.slice(11) : text,
  };
  const write = (place, text) => { if (place.textContent !== text) place.textContent = text; };
  function tellTimes(within) {
    for (const time of all("time[data-as]", within)) {
      const moment = new Date(time.dateTime);
      write(time, words[time.dataset.as]((now() - moment) / 1000, stamp(moment)));
    }
  }
  function tellZone(within) {
    const zone = isLocal() ? "local" : "UTC";
    for (const time of all("time[datetime]", within)) {
      time.title = `${stamp(new Date(time.dateTime))} ${isLocal() ? "local time" : zone}`;
    }
    for (const place of all("[data-at]", within)) write(place, stamp(new Date(place.dataset.at)).slice(11, 16));
    for (const place of all(".zone", within)) write(place, zone);
    tellTimes(within);
  }
  function enhance(within) {
    for (const button of all("[data-copy]", within)) button.hidden = !navigator.clipboard;
    tellZone(within);
    count();
  }
  // Not inside a text selection, because a change of the text would end it.
  const tick = () => { if (!document.hidden && document.getSelection().isCollapsed) tellTimes(document); };
  tune(page.dataset.now);
  setInterval(tick, 1000);
  on("visibilitychange", tick);

  // --- the live region fetches its fragment again, unless the page is hidden or a person works in the region
  let isForced = false, held = "", opened = [], older;
  const say = (why) => { if (find("fresh-why")) find("fresh-why").textContent = why && ` · ${why}`; };
  function whyNot() {
    const selection = document.getSelection(), isMarked = !selection.isCollapsed && live.contains(selection.anchorNode);
    if (isForced) return "";
    if (isMarked || document.querySelector("[data-pick]:checked")) return "paused while you select";
    if (live.contains(document.activeElement)) return "paused while you work in it";
    return document.querySelector(":popover-open, dialog[open]") ? "paused behind what is open" : "";
  }
  function poll(force) {
    isForced = force === true;
    if (!live || (document.hidden && !isForced)) return;
    say(whyNot());
    if (!whyNot()) window.htmx.trigger(live, "refresh");
  }
  let timer;
  function schedule() {
    const seconds = Number(page.dataset.refresh);
    clearInterval(timer);
    if (seconds) timer = setInterval(poll, seconds * 1000);
    say(seconds ? "" : "refresh is off");
  }
  if (live) {
    schedule();
    on("visibilitychange", poll);
    on("htmx:configRequest", (event) => { event.detail.headers["If-None-Match"] = live.dataset.etag; }, live);
    on("htmx:beforeSwap", (event) => {
      // Keep the page when the answer is no fragment, such as a sign-in page, or when a selection has begun meanwhile.
      if (!event.detail.serverResponse.includes('id="part"') || whyNot()) event.detail.shouldSwap = false;
      const [focus, name] = [document.activeElement, document.activeElement.hasAttribute("href") ? "href" : "formaction"];
      held = live.contains(focus) && `[${name}="${CSS.escape(focus.getAttribute(name))}"]`;
      opened = all("details", live).map((one) => one.open);
    }, live);
    on("htmx:afterSwap", (event) => {
      // Opened details stay open, and the focus returns to its element.
      const details = all("details", live);
      if (details.length === opened.length) details.forEach((one, at) => { one.open = opened[at]; });
      if (held) (live.querySelector(held) ?? find("main")).focus();
      // Jobs that moved up to replace the done ones are on this page, and also begin the next one: none is skipped.
      if (older && live.querySelector("a[rel=next]")) live.querySelector("a[rel=next]").setAttribute("href", older);
      live.dataset.etag = event.detail.xhr.getResponseHeader("ETag") ?? "";
      enhance(live);
    }, live);
    on("htmx:afterRequest", (event) => {
      const { xhr } = event.detail, time = find("fresh").querySelector("time");
      isForced = false;
      if (xhr.status === 304 || (xhr.status === 200 && xhr.getResponseHeader("ETag"))) {
        tune(xhr.getResponseHeader("Date"));
        time.dateTime = now().toISOString();
        tellZone(find("fresh"));
      } else {
        const problem = new DOMParser().parseFromString(xhr.responseText, "text/html").getElementById("dialog-page-title");
        const answered = problem ? problem.textContent : `the server answered ${xhr.status}`;
        say(`not refreshed: ${xhr.status ? answered : "the server did not answer"}`);
      }
    }, live);
  }

  // --- actions: the answer to a form or a link with data-dialog opens over the page
  // Screen readers do not announce a toast behind an open dialog.
  const tell = (...what) => [(dialog.open ? dialog : document.body).append(toast), toast.replaceChildren(...what)];
  async function show(url, options) {
    const answer = await fetch(url, { ...options, headers: { "HX-Request": "true" } }).then((got) => got.text(), () => "");
    const content = new DOMParser().parseFromString(answer, "text/html").getElementById("dialog-page");
    if (!content) return tell(answer ? "Not what was asked for: are you still signed in?" : "The server did not answer.");
    tell();
    if ("done" in content.dataset) {
      older = live?.querySelector("a[rel=next]")?.getAttribute("href");
      return [dialog.close(), tell(content.querySelector("[data-toast]")), poll(true)];
    }
    find("dialog-place").replaceChildren(content);
    enhance(content);
    if (!dialog.open) dialog.showModal();
    (content.querySelector("textarea") ?? content.querySelector("h1")).focus();
  }
  on("submit", (event) => {
    const { target: form, submitter: button } = event;
    if (!("dialog" in form.dataset)) return;
    event.preventDefault();
    if (button.ariaBusy) return; // aria-busy instead of disabled, so that the focus can return to it
    const [url, data] = [button.getAttribute("formaction") ?? form.action, new FormData(form, button)];
    show(url, { method: "POST", body: new URLSearchParams(data) }).finally(() => { button.ariaBusy = null; });
    button.ariaBusy = "true";
  });
  on("click", async (event) => {
    const found = event.target.closest("a[data-dialog], [data-close], [data-copy], [data-pick]");
    if (!found || event.ctrlKey || event.metaKey) return;
    const { copy, close, pick } = found.dataset;
    if (pick !== undefined) return range(found, event.shiftKey);
    if (copy) await navigator.clipboard.writeText(find(copy).textContent).then(() => { found.textContent = "Copied"; });
    else if (close === undefined || dialog.open) event.preventDefault();
    if (close !== undefined) [dialog.close(), tell()];
    else if (!copy) show(found.href);
  });

  // --- selection: the bar shows how many rows are selected, each action how many it can take; shift selects a range
  let last = null;
  function count() {
    const boxes = all("[data-pick]"), picked = boxes.filter((box) => box.checked);
    all("[data-picked]").forEach((place) => { place.textContent = picked.length; });
    for (const button of all("[data-bulk]")) {
      const able = picked.filter((box) => button.dataset.bulk.split(" ").includes(box.dataset.pick)).length;
      [button.disabled, button.querySelector("small").textContent] = [!able, able || ""];
    }
    for (const box of all("[data-pick-all]")) box.checked = boxes.length > 0 && picked.length === boxes.length;
  }
  function range(box, isShift) {
    const boxes = all("[data-pick]"), ends = [boxes.indexOf(last), boxes.indexOf(box)].sort((a, b) => a - b);
    if (isShift && ends[0] >= 0) boxes.slice(ends[0], ends[1]).forEach((one) => { one.checked = box.checked; });
    last = box;
    count();
  }
  on("pageshow", count, window); // the browser restores ticked boxes
  const pickAll = (isPicked) => [all("[data-pick]").forEach((box) => { box.checked = isPicked; }), count()];
  on("change", ({ target }) => {
    if (target.closest(".prefs")) choose(target);
    else if ("pickAll" in target.dataset) pickAll(target.checked);
  });

  // --- a changed preference applies at once, without a reload, and is stored
  async function choose({ name, value, form }) {
    page.dataset[name] = value;
    if (name === "zone") tellZone(document);
    if (name === "refresh" && live) schedule();
    const sent = { method: "POST", body: new URLSearchParams(new FormData(form)), headers: { "HX-Request": "true" } };
    const isKept = await fetch(form.action, sent).then((got) => got.status === 204, () => false);
    if (!isKept) tell("This choice holds on this page only: the server did not keep it. Are you still signed in?");
  }

  // --- keys, ignored while a person types
  let isGoing = false;
  const row = () => document.activeElement.closest("[data-row]");
  function step(by) { // focuses the row's link, so that Enter opens it
    const rows = all("[data-row]"), at = row() ? rows.indexOf(row()) + by : 0;
    rows.at(Math.min(Math.max(at, 0), rows.length - 1))?.querySelector("a.id").focus();
  }
  const keys = {
    "?": () => find("help").click(), "/": () => (find("q") ?? find("jump")).focus(), r: () => poll(true),
    j: () => step(1), k: () => step(-1), x: () => row()?.querySelector("[data-pick]")?.click(),
    t: () => [find("theme").value = page.dataset.theme === "dark" ? "light" : "dark", choose(find("theme"))],
    g: () => { isGoing = true; }, Escape: () => [pickAll(false), tell()],
  };
  on("keydown", (event) => {
    const isTyping = event.target.matches("input:not([type=checkbox]), textarea, select");
    if (isTyping || dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
    const place = isGoing && all("[data-key]").find((link) => link.dataset.key === event.key);
    const action = place ? () => place.click() : !isGoing && keys[event.key];
    isGoing = false;
    if (action) [event.preventDefault(), action()];
  });

  enhance(document);
})();

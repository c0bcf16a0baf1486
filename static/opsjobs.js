// Refreshes pages, opens dialogs, counts selections and reads keys. Without it they work, but do not refresh.
"use strict";
(() => {
  const page = document.documentElement;

  function find(id) {
    return document.getElementById(id);
  }

  function all(selector, within = document) {
    return [...within.querySelectorAll(selector)];
  }

  function on(name, hear, target = document) {
    target.addEventListener(name, hear);
  }

  const dialog = find("dialog");
  const toast = find("toast");
  const live = find("live");

  // --- times: the server sends them in UTC; here ages are updated, and times written in the preferred zone

  // The server's clock minus this one, in ms. Differences that a slow answer explains are ignored.
  let skew = 0;

  function tune(serverTime) {
    const difference = Date.parse(serverTime) - Date.now();
    skew = Math.abs(difference) > 3000 ? difference : 0;
  }

  function now() {
    return new Date(Date.now() + skew);
  }

  function isLocal() {
    return page.dataset.zone === "local";
  }

  function stamp(moment) {
    if (isLocal()) return moment.toLocaleString("sv");
    return moment.toISOString().slice(0, 19).replace("T", " ");
  }

  const sizes = [[60, 1, "s"], [3600, 60, "min"], [48 * 3600, 3600, "h"], [Infinity, 86400, "d"]];

  function span(seconds) {
    const [, size, unit] = sizes.find(([limit]) => seconds < limit);
    return `${Math.floor(seconds / size)} ${unit}`;
  }

  // Each style of a time: `passed` are the seconds since then, `text` is the time with its date.
  const styles = {
    ago(passed) {
      if (Math.abs(passed) < 1) return "now";
      return passed > 0 ? `${span(passed)} ago` : `in ${span(-passed)}`;
    },
    age(passed) {
      return span(Math.max(0, passed));
    },
    due(passed) {
      if (Math.abs(passed) < 1) return "is due now";
      return passed > 0 ? `has been due for ${span(passed)}` : `is due in ${span(-passed)}`;
    },
    for(passed) {
      return `for ${span(Math.max(0, passed))}`;
    },
    moment(passed, text) {
      return `${text} ${isLocal() ? "local time" : "UTC"}`;
    },
    clock(passed, text) {
      const isToday = text.slice(0, 10) === stamp(now()).slice(0, 10);
      return isToday ? text.slice(11) : text;
    },
  };

  function write(place, text) {
    if (place.textContent !== text) place.textContent = text;
  }

  function writeTimes(within) {
    for (const time of all("time[data-as]", within)) {
      const moment = new Date(time.dateTime);
      const passed = (now() - moment) / 1000;
      write(time, styles[time.dataset.as](passed, stamp(moment)));
    }
  }

  function writeZone(within) {
    for (const time of all("time[datetime]", within)) {
      time.title = `${stamp(new Date(time.dateTime))} ${isLocal() ? "local time" : "UTC"}`;
    }
    for (const place of all("[data-at]", within)) {
      write(place, stamp(new Date(place.dataset.at)).slice(11, 16));
    }
    for (const field of all("[data-in-zone]", within)) {
      const here = isLocal() ? Intl.DateTimeFormat().resolvedOptions().timeZone : "";
      field.value = field.dataset.inZone || here;
      field.disabled = !field.value;
    }
    for (const place of all(".zone", within)) {
      write(place, isLocal() ? "local" : "UTC");
    }
    writeTimes(within);
  }

  function enhance(within) {
    for (const button of all("[data-copy], [data-copy-from]", within)) {
      button.hidden = !navigator.clipboard;
    }
    writeZone(within);
    count();
  }

  function tick() {
    // Not inside a text selection, because a change of the text would end it.
    if (!document.hidden && document.getSelection().isCollapsed) writeTimes(document);
  }

  tune(page.dataset.now);
  setInterval(tick, 1000);
  on("visibilitychange", tick);

  // --- the live region fetches its fragment again, unless the page is hidden or a person works in it

  // Whether the next request replaces the region even where a person works in it. The request keeps this,
  // because an earlier one may still be on its way.
  let isForceWanted = false;
  let focused = null; // the selector of the element that had the focus before a swap
  let opened = []; // which details were open before a swap
  let older; // the address of the page of older rows, as it was before an action
  let timer;

  function say(why) {
    const place = find("fresh-why");
    if (place) place.textContent = why && ` · ${why}`;
  }

  function whyNot() {
    const selection = document.getSelection();
    const isMarked = !selection.isCollapsed && live.contains(selection.anchorNode);
    if (isMarked || document.querySelector("[data-pick]:checked")) return "paused while you select";
    if (live.contains(document.activeElement)) return "paused while you work in it";
    if (document.querySelector(":popover-open, dialog[open]")) return "paused behind what is open";
    return "";
  }

  function poll() {
    if (!live || document.hidden) return;
    const why = whyNot();
    if (why) say(why);
    else window.htmx.trigger(live, "refresh");
  }

  // The title begins with the worst of what is wrong. A hidden tab does not refresh: it says as of when.
  let lack = ""; // what keeps the page from being refreshed

  // When everything that the page shows was read.
  function readTime() {
    return find("fresh").querySelector("time");
  }

  function writeTitle() {
    const icon = find("icon");
    icon.href = lack ? page.dataset.unknownIcon : icon.dataset.icon;
    const asOf = live && document.hidden ? stamp(new Date(readTime().dateTime)).slice(11, 16) : "";
    document.title = [asOf, lack || icon.dataset.says, page.dataset.title].filter(Boolean).join(" · ");
  }

  function refresh() {
    if (!live) return;
    say("");
    isForceWanted = true;
    window.htmx.trigger(live, "refresh");
  }

  function schedule() {
    const seconds = Number(page.dataset.refresh);
    clearInterval(timer);
    if (seconds) timer = setInterval(poll, seconds * 1000);
    say(seconds ? "" : "refresh is off");
  }

  function beforeRequest(event) {
    const request = event.detail;
    request.headers["If-None-Match"] = live.dataset.etag;
    // The server then looks at everything anew.
    if (isForceWanted) request.headers["Cache-Control"] = "no-cache";
    request.isForced = isForceWanted;
    isForceWanted = false;
  }

  function beforeSwap(event) {
    // Keep the page when the answer is no fragment, such as a sign-in page, or when a selection has begun.
    const isFragment = event.detail.serverResponse.includes('id="part"');
    const isFree = event.detail.requestConfig.isForced || !whyNot();
    if (!isFragment || !isFree) event.detail.shouldSwap = false;
    focused = selectorOf(document.activeElement);
    opened = all("details", live).map((details) => details.open);
  }

  function selectorOf(element) {
    if (!live.contains(element)) return null;
    const name = element.hasAttribute("href") ? "href" : "formaction";
    return `[${name}="${CSS.escape(element.getAttribute(name))}"]`;
  }

  function afterSwap(event) {
    // Opened details stay open, and the focus returns to its element.
    const details = all("details", live);
    if (details.length === opened.length) {
      details.forEach((one, position) => { one.open = opened[position]; });
    }
    if (focused) {
      const element = live.querySelector(focused) ?? find("main");
      element.focus({ preventScroll: true });
    }
    // Jobs that moved up to replace the done ones are on this page, and begin the next one too.
    const next = live.querySelector("a[rel=next]");
    if (older && next) next.setAttribute("href", older);
    keepTag(event.detail.xhr);
    enhance(live);
  }

  // The page is as this answer says: everything was read for it.
  function keepTag(xhr) {
    live.dataset.etag = xhr.getResponseHeader("ETag") ?? "";
    readTime().dateTime = now().toISOString();
    say("");
  }

  function afterRequest(event) {
    const xhr = event.detail.xhr;
    const isFresh = xhr.status === 304 || (xhr.status === 200 && xhr.getResponseHeader("ETag"));
    if (!isFresh) {
      say(`not refreshed: ${problemOf(xhr)}`);
      lack = "○ not refreshed";
      writeTitle();
      return;
    }
    tune(xhr.getResponseHeader("Date"));
    if (xhr.status === 304) {
      // The same tag means that the server only looked for changes in Postgres.
      if (xhr.getResponseHeader("ETag") === live.dataset.etag) say("no change in Postgres since");
      else keepTag(xhr);
    }
    lack = "";
    writeTitle();
    writeZone(find("fresh"));
  }

  function problemOf(xhr) {
    if (!xhr.status) return "the server did not answer";
    const answer = new DOMParser().parseFromString(xhr.responseText, "text/html");
    const title = answer.getElementById("dialog-page-title");
    return title ? title.textContent : `the server answered ${xhr.status}`;
  }

  // An answer may lead the page to the sign-in. What is typed and not sent is kept, and the page stays.
  function beforeLeaving(event) {
    const fields = all("input:not([type=checkbox]), textarea");
    const isTyped = fields.some((field) => field.value !== field.defaultValue);
    if (isTyped && event.detail.xhr.getResponseHeader("HX-Redirect")) event.preventDefault();
  }

  on("htmx:beforeOnLoad", beforeLeaving);

  if (live) {
    schedule();
    on("visibilitychange", writeTitle);
    on("visibilitychange", poll);
    // What else is fetched into the region, such as why jobs wait, tells it too.
    const ofRegion = (listener) => (event) => { if (event.target === live) listener(event); };
    on("htmx:configRequest", ofRegion(beforeRequest), live);
    on("htmx:beforeSwap", ofRegion(beforeSwap), live);
    on("htmx:afterSwap", ofRegion(afterSwap), live);
    on("htmx:afterRequest", ofRegion(afterRequest), live);
  }

  // --- why jobs wait: fetched by a link, or by itself; then kept while a person works in it

  const waiting = find("why-waiting");

  function beforeWaiting(event) {
    const isAnswer = event.detail.xhr.status === 200 && event.detail.serverResponse.includes('id="part"');
    const isInUse = !isAskedFor(event) && waiting.contains(document.activeElement);
    if (!isAnswer || isInUse) event.detail.shouldSwap = false;
  }

  function isAskedFor(event) {
    return event.detail.requestConfig.elt !== waiting;
  }

  function afterWaiting(event) {
    enhance(waiting);
    if (!isAskedFor(event)) return;
    // The focus was on the link, which is gone.
    waiting.tabIndex = -1;
    waiting.focus({ preventScroll: true });
  }

  if (waiting) {
    on("htmx:beforeSwap", beforeWaiting, waiting);
    on("htmx:afterSwap", afterWaiting, waiting);
  }

  // --- actions: the answer to a form or a link with data-dialog opens over the page

  function tell(...message) {
    // Screen readers do not announce a toast behind an open dialog.
    const place = dialog.open ? dialog : document.body;
    place.append(toast);
    toast.replaceChildren(...message);
  }

  function closeDialog() {
    dialog.close();
    tell();
  }

  async function fetchText(url, options) {
    try {
      const response = await fetch(url, { ...options, headers: { "HX-Request": "true" } });
      return await response.text();
    } catch {
      return "";
    }
  }

  async function show(url, options) {
    const text = await fetchText(url, options);
    const content = new DOMParser().parseFromString(text, "text/html").getElementById("dialog-page");
    if (!content) {
      tell(text ? "Not what was asked for: are you still signed in?" : "The server did not answer.");
    } else if ("done" in content.dataset) {
      older = live?.querySelector("a[rel=next]")?.getAttribute("href");
      closeDialog();
      tell(content.querySelector("[data-toast]"));
      refresh();
    } else {
      tell();
      find("dialog-place").replaceChildren(content);
      enhance(content);
      if (!dialog.open) dialog.showModal();
      const first = content.querySelector("textarea") ?? content.querySelector("h1");
      first.focus();
    }
  }

  on("submit", async (event) => {
    const form = event.target;
    const button = event.submitter;
    if (!("dialog" in form.dataset)) return;
    // A preview that is a page of its own is answered by a page.
    const isPage = form.closest(".sole");
    // aria-busy instead of disabled, so that the focus can return to the button
    const isBusy = button.ariaBusy;
    if (isBusy || !isPage) event.preventDefault();
    button.ariaBusy = "true";
    if (isBusy || isPage) return;
    const url = button.getAttribute("formaction") ?? form.action;
    const body = new URLSearchParams(new FormData(form, button));
    await show(url, { method: "POST", body });
    button.ariaBusy = null;
  });

  // The browser may restore a page that was left while its button was busy.
  on("pageshow", () => {
    for (const button of all("button[aria-busy]")) button.ariaBusy = null;
  }, window);

  async function copy(button) {
    const { copy: id, copyFrom: url } = button.dataset;
    const text = id ? find(id).textContent : await fetchText(url, {});
    // A problem is answered as a page. Nothing of it belongs in a ticket.
    if (!text || text.startsWith("<!doctype html>")) {
      button.textContent = "Not copied: open the link instead";
      return;
    }
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  }

  on("click", (event) => {
    const wanted = "a[data-dialog], [data-close], [data-copy], [data-copy-from], [data-pick]";
    const target = event.target.closest(wanted);
    if (!target || event.ctrlKey || event.metaKey) return;
    if ("pick" in target.dataset) {
      pickRange(target, event.shiftKey);
    } else if ("copy" in target.dataset || "copyFrom" in target.dataset) {
      copy(target);
    } else if ("close" in target.dataset) {
      if (dialog.open) event.preventDefault();
      closeDialog();
    } else {
      event.preventDefault();
      show(target.href);
    }
  });

  // --- selection: the bar shows how many rows are selected, each action how many it can take

  let lastBox = null;

  function count() {
    const boxes = all("[data-pick]");
    const picked = boxes.filter((box) => box.checked);
    for (const place of all("[data-picked]")) {
      place.textContent = picked.length;
    }
    for (const button of all("[data-bulk]")) {
      const states = button.dataset.bulk.split(" ");
      const able = picked.filter((box) => states.includes(box.dataset.pick)).length;
      button.disabled = able === 0;
      button.querySelector("small").textContent = able || "";
    }
    for (const box of all("[data-pick-all]")) {
      box.checked = boxes.length > 0 && picked.length === boxes.length;
    }
  }

  // Selects or clears all rows from the last clicked one to this one, when shift is held.
  function pickRange(box, isShift) {
    const boxes = all("[data-pick]");
    const from = boxes.indexOf(lastBox);
    const to = boxes.indexOf(box);
    if (isShift && from >= 0) {
      for (const one of boxes.slice(Math.min(from, to), Math.max(from, to))) {
        one.checked = box.checked;
      }
    }
    lastBox = box;
    count();
  }

  function pickAll(isPicked) {
    for (const box of all("[data-pick]")) {
      box.checked = isPicked;
    }
    count();
  }

  on("pageshow", count, window); // the browser restores ticked boxes
  on("change", (event) => {
    if (event.target.closest(".prefs")) choose(event.target);
    else if ("pickAll" in event.target.dataset) pickAll(event.target.checked);
  });

  // --- a changed preference applies at once, without a reload, and is stored

  async function choose(field) {
    page.dataset[field.name] = field.value;
    if (field.name === "zone") writeZone(document);
    if (field.name === "refresh" && live) schedule();
    const body = new URLSearchParams(new FormData(field.form));
    const sent = { method: "POST", body, headers: { "HX-Request": "true" } };
    const isKept = await fetch(field.form.action, sent).then((answer) => answer.status === 204, () => false);
    if (isKept) return;
    tell("This choice holds on this page only: the server did not keep it. Are you still signed in?");
  }

  // --- suggestions: a list below the search box, from which keys or a click choose

  const offers = find("suggestions");
  const box = offers && find("q");

  function offered() {
    return all("[role=option]", offers);
  }

  function chosen() {
    return offered().find((option) => option.ariaSelected === "true");
  }

  function chooseOffer(option) {
    for (const one of offered()) one.ariaSelected = String(one === option);
    if (option) {
      box.setAttribute("aria-activedescendant", option.id);
      option.scrollIntoView({ block: "nearest" });
    } else {
      box.removeAttribute("aria-activedescendant");
    }
  }

  function openOffers(isOpen) {
    offers.hidden = !isOpen;
    box.ariaExpanded = String(isOpen);
    chooseOffer(null);
  }

  function stepOffers(by) {
    const options = offered();
    if (options.length === 0) {
      window.htmx.trigger(box, "suggest");
      return;
    }
    const at = options.indexOf(chosen());
    if (offers.hidden) openOffers(true);
    const first = by > 0 ? 0 : options.length - 1;
    chooseOffer(at < 0 ? options[first] : options[(at + by + options.length) % options.length]);
  }

  // A qualifier is followed by its values, a whole term by a space.
  function takeOffer(option) {
    const isWhole = !option.dataset.fill.endsWith(":");
    box.value = isWhole ? `${option.dataset.fill} ` : option.dataset.fill;
    openOffers(false);
    offers.replaceChildren();
    if (!isWhole) window.htmx.trigger(box, "suggest");
  }

  function hearOffers(event) {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      stepOffers(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Enter" && !offers.hidden && chosen()) {
      event.preventDefault();
      takeOffer(chosen());
    } else if (event.key === "Escape" && !offers.hidden) {
      event.preventDefault();
      openOffers(false);
    }
  }

  if (offers) {
    on("keydown", hearOffers, box);
    on("blur", () => openOffers(false), box);
    on("htmx:afterSwap", () => {
      openOffers(offered().length > 0 && document.activeElement === box);
    }, offers);
    // Before the box loses the focus.
    on("mousedown", (event) => {
      const option = event.target.closest("[role=option]");
      event.preventDefault();
      if (option) takeOffer(option);
    }, offers);
  }

  // --- forensics: this browser remembers, for each person, which subjects were looked at

  const looksKept = 10;
  const looks = `opsjobs looked ${document.querySelector(".who")?.firstChild.data.trim()}`;

  function readLooks() {
    try {
      const kept = JSON.parse(localStorage.getItem(looks));
      return Array.isArray(kept) ? kept.filter(([path, words]) => path && words) : [];
    } catch {
      return []; // another program wrote it, or the browser stores nothing
    }
  }

  function keepLook(path, words) {
    const others = readLooks().filter(([other]) => other !== path);
    try {
      localStorage.setItem(looks, JSON.stringify([[path, words], ...others].slice(0, looksKept)));
    } catch {
      // Without storage the list stays empty.
    }
  }

  function showLooks(panel) {
    const rows = readLooks().map(([path, words]) => {
      const link = document.createElement("a");
      link.className = "id";
      // A place on this site, whatever the storage holds.
      link.href = new URL(path, location.origin).pathname;
      link.textContent = words;
      const row = document.createElement("li");
      row.dataset.row = "";
      row.append(link);
      return row;
    });
    panel.querySelector("ul").replaceChildren(...rows);
    panel.hidden = rows.length === 0;
  }

  const lookedAt = document.querySelector("[data-looked]");
  if (lookedAt) keepLook(location.pathname, lookedAt.dataset.looked);
  if (find("looked")) showLooks(find("looked"));

  // --- keys, ignored while a person types

  let isGoing = false;

  function currentRow() {
    return document.activeElement.closest("[data-row]");
  }

  // Focuses the row's link, so that Enter opens it.
  function step(by) {
    const rows = all("[data-row]");
    const wanted = currentRow() ? rows.indexOf(currentRow()) + by : 0;
    const row = rows.at(Math.min(Math.max(wanted, 0), rows.length - 1));
    row?.querySelector("a.id, th a")?.focus();
  }

  function switchTheme() {
    const field = find("theme");
    field.value = page.dataset.theme === "dark" ? "light" : "dark";
    choose(field);
  }

  const keys = {
    "?": () => find("help").click(),
    "/": () => (find("q") ?? find("jump")).focus(),
    r: () => refresh(),
    j: () => step(1),
    k: () => step(-1),
    x: () => currentRow()?.querySelector("[data-pick]")?.click(),
    a: () => document.querySelector(".bulk [data-select-all]")?.click(),
    t: () => switchTheme(),
    g: () => { isGoing = true; },
    Escape: () => {
      pickAll(false);
      tell();
    },
  };

  function actionOf(key) {
    if (!isGoing) return keys[key];
    const link = all("[data-key]").find((one) => one.dataset.key === key);
    return link && (() => link.click());
  }

  on("keydown", (event) => {
    const isTyping = event.target.matches("input:not([type=checkbox]), textarea, select");
    if (isTyping || dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = actionOf(event.key);
    isGoing = false;
    if (!action) return;
    event.preventDefault();
    action();
  });

  enhance(document);
})();

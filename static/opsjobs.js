// What pages do beyond plain HTML. Without it they work, and stand still.
"use strict";
(() => {
  const page = document.documentElement;
  const find = (id) => document.getElementById(id);

  // Times in the browser's zone, when that is preferred. The server writes UTC.
  const isLocal = page.dataset.zone === "local";
  const pad = (number) => String(number).padStart(2, "0");
  const clock = (moment) => [moment.getHours(), moment.getMinutes(), moment.getSeconds()].map(pad).join(":");
  const day = (moment) => [moment.getFullYear(), pad(moment.getMonth() + 1), pad(moment.getDate())].join("-");

  function localise(within) {
    if (!isLocal) return;
    for (const time of within.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      time.title = `${day(moment)} ${clock(moment)} local time`;
      if ("clock" in time.dataset) {
        time.textContent = day(moment) === day(new Date()) ? clock(moment) : `${day(moment)} ${clock(moment)}`;
      }
    }
  }

  function refreshed(moment) {
    const time = find("fresh")?.querySelector("time");
    if (!time) return;
    time.dateTime = moment.toISOString();
    time.textContent = isLocal ? clock(moment) : moment.toISOString().slice(11, 19);
    find("fresh-zone").textContent = isLocal ? "local" : "UTC";
  }

  const say = (why) => { const place = find("fresh-why"); if (place) place.textContent = why && ` · ${why}`; };

  // The live region asks for its part again, unless nobody looks or somebody works in it.
  function whyNot(region) {
    if (region.contains(document.activeElement)) return "paused while you work in it";
    const selection = document.getSelection();
    if (selection && !selection.isCollapsed && region.contains(selection.anchorNode)) return "paused while you select";
    if (document.querySelector(":popover-open")) return "paused behind the menu";
    return "";
  }

  function poll() {
    const region = find("live");
    if (document.hidden || !region) return;
    const why = whyNot(region);
    say(why);
    if (!why) window.htmx.trigger(region, "refresh");
  }

  const seconds = Number(page.dataset.refresh);
  if (find("live")) {
    if (seconds) setInterval(poll, seconds * 1000);
    else say("refresh is off");
    document.addEventListener("visibilitychange", poll);
  }

  const isPoll = (event) => event.detail.elt?.id === "live";

  document.addEventListener("htmx:configRequest", (event) => {
    if (isPoll(event)) event.detail.headers["If-None-Match"] = find("live").dataset.etag;
  });

  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target?.id !== "live") return;
    // A sign-in page, say, answers with something else: leave what is there.
    if (!event.detail.serverResponse.includes('id="part"')) event.detail.shouldSwap = false;
    // Somebody may have begun to select since the question was asked.
    if (whyNot(event.detail.target)) event.detail.shouldSwap = false;
    else if (event.detail.shouldSwap) keepOpen = openDetails();
  });

  // What a person opened stays open.
  let keepOpen = [];
  const openDetails = () => [...document.querySelectorAll("#live details")].map((one) => one.open);

  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target?.id !== "live") return;
    const details = document.querySelectorAll("#live details");
    if (details.length === keepOpen.length) details.forEach((one, at) => { one.open = keepOpen[at]; });
    event.detail.target.dataset.etag = event.detail.xhr.getResponseHeader("ETag") ?? "";
    enhance(event.detail.target);
  });

  document.addEventListener("htmx:afterRequest", (event) => {
    if (!isPoll(event)) return;
    const status = event.detail.xhr.status;
    if (status === 304 || (status === 200 && event.detail.xhr.getResponseHeader("ETag"))) refreshed(new Date());
    else say(status ? `not refreshed: the server answered ${status}` : "not refreshed: the server did not answer");
  });

  // Copy buttons are hidden until there is something that works them.
  function enhance(within) {
    localise(within);
    for (const button of within.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(find(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });

  // Preferences are kept as soon as they are chosen.
  document.querySelector(".prefs")?.addEventListener("change", (event) => event.currentTarget.requestSubmit());

  enhance(document);
  if (isLocal && find("fresh-zone")) find("fresh-zone").textContent = "local";
})();

// Enhances the dashboard's pages. Each of them works without this.
"use strict";
(() => {
  const all = (selector, from) => Array.from((from || document).querySelectorAll(selector));
  const say = (text) => {
    const live = document.getElementById("said");
    if (live) live.textContent = text;
  };

  // Buttons that only work with JavaScript are hidden until here.
  all("[data-js]").forEach((element) => element.classList.remove("hidden"));

  // Copy what an element contains.
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const of = document.getElementById(button.dataset.copy);
    const text = of.dataset.secret || of.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      (button.closest("dialog") || document.body).append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    saved();
    const before = button.textContent;
    button.textContent = "Copied";
    say("Copied");
    setTimeout(() => { button.textContent = before; }, 1500);
  });

  // A secret is masked until it is asked for.
  all("[data-secret]").forEach((element) => {
    const secret = element.textContent;
    const mask = secret.slice(0, 8) + "…".padEnd(8, "•") + secret.slice(-4);
    element.dataset.secret = secret;
    element.textContent = mask;
    const button = document.querySelector(`[data-reveal="${element.id}"]`);
    const lines = all("[data-line]");
    lines.forEach((line) => {
      line.dataset.secret = line.textContent;
      line.textContent = line.textContent.replace(secret, mask);
    });
    if (button) button.addEventListener("click", () => {
      const hidden = element.textContent === mask;
      element.textContent = hidden ? secret : mask;
      lines.forEach((line) => {
        line.textContent = hidden ? line.dataset.secret : line.dataset.secret.replace(secret, mask);
      });
      button.textContent = hidden ? "Hide" : "Reveal";
    });
  });

  // Who leaves a page with a secret without having saved it is asked.
  let unsaved = document.querySelector("[data-unsaved]") !== null;
  const saved = () => { unsaved = false; };
  all("[data-saved]").forEach((element) => element.addEventListener("click", saved));
  window.addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });

  // Links to a confirmation open it as a dialog.
  document.addEventListener("click", async (event) => {
    const link = event.target.closest("a[data-dialog]");
    if (!link || event.metaKey || event.ctrlKey || !window.HTMLDialogElement) return;
    event.preventDefault();
    let card;
    try {
      const response = await fetch(link.href, { credentials: "same-origin" });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      card = page.querySelector("[data-dialog-body]");
    } catch { /* the page itself is opened */ }
    if (!card) { location.href = link.href; return; }
    const dialog = document.createElement("dialog");
    dialog.setAttribute("aria-labelledby", "dialog-title");
    dialog.append(document.adoptNode(card));
    document.body.append(dialog);
    all("a[data-cancel]", dialog).forEach((cancel) => cancel.addEventListener("click", (click) => {
      click.preventDefault();
      dialog.close();
    }));
    dialog.addEventListener("close", () => { dialog.remove(); link.focus(); });
    dialog.showModal();
    const first = dialog.querySelector("[data-cancel]");
    if (first) first.focus();
  });

  // Absolute times in the reader's time zone.
  all("time[datetime]").forEach((element) => {
    const at = new Date(element.dateTime);
    if (isNaN(at)) return;
    element.title = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
    if (element.dataset.local !== undefined) {
      element.textContent = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    }
  });

  // Countdowns to the end of an old secret.
  const countdowns = all("[data-until]");
  if (countdowns.length) setInterval(() => countdowns.forEach((element) => {
    const left = Math.floor((new Date(element.dataset.until) - Date.now()) / 1000);
    const pad = (number) => String(number).padStart(2, "0");
    element.textContent = left <= 0 ? "ended"
      : `${Math.floor(left / 3600)}:${pad(Math.floor(left / 60) % 60)}:${pad(left % 60)} left`;
  }), 1000);

  // Balance and requests, live; asked for now and then where events do not arrive.
  const live = document.querySelector("[data-live]");
  if (live) {
    const show = (numbers) => all("[data-number]").forEach((element) => {
      const value = numbers[element.dataset.number];
      if (value !== undefined && element.textContent !== value) element.textContent = value;
    });
    const check = (numbers) => {
      const step = document.getElementById("step-3");
      if (step && numbers.used && !step.classList.contains("done")) {
        step.classList.add("done");
        step.querySelector(".step").textContent = "✓";
        say("Your first request has arrived.");
      }
      show(numbers);
    };
    let timer;
    const poll = () => {
      if (timer) return;
      timer = setInterval(async () => {
        const response = await fetch(live.dataset.live + "?once=1", { credentials: "same-origin" });
        if (response.ok) check(await response.json());
      }, 5000);
    };
    if (window.EventSource) {
      const events = new EventSource(live.dataset.live);
      events.addEventListener("message", (event) => check(JSON.parse(event.data)));
      events.addEventListener("error", () => { if (events.readyState === EventSource.CLOSED) poll(); });
    } else poll();
  }

  // The reader's own time zone is marked among the others.
  all("select[data-zone] option").forEach((option) => {
    if (Number(option.value) === -new Date().getTimezoneOffset()) option.textContent += " (yours)";
  });

  // Forms that filter are sent when a choice changes.
  all("form[data-auto] select").forEach((select) => select.addEventListener("change", () => select.form.submit()));

  // `n` creates.
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, [contenteditable]");
    if (event.key !== "n" || typing || event.metaKey || event.ctrlKey || event.altKey) return;
    const create = document.querySelector("a[data-create]");
    if (create) create.click();
  });
})();

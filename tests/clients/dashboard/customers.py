"""What customers do: keys, one-time codes, webhooks, sign-up by e-mail."""

import http.server
import json
import re
import threading
import time
import urllib.request

from browser import (BASE, HERE, PASSWORD, account, call, check, code_of, create_key, eventually, make_key, page_key, press, shown_secret,
                     sign_in, sign_up, submit, use_link)


def keys(browser, has_script):
    """A customer's whole life with keys."""
    context = browser.new_context(java_script_enabled=has_script)
    context.grant_permissions(["clipboard-read", "clipboard-write"]) if has_script else None
    page = context.new_page()
    email = f"customer-{has_script}@example.com"
    sign_up(page, "A Customer", email)
    place = account(page)
    check("Your first request" in page.content(), "the first steps are shown")
    secret = create_key(page, place, "first", has_script)
    page.goto(BASE + place)
    check(call("/one", secret) == 200, "the new key works at once")
    if has_script:
        page.wait_for_selector("#step-3.done", timeout=20000)
        eventually("the numbers are live", lambda: page.inner_text("[data-number=requests]") == "1")
    else:
        eventually("the numbers", lambda: page.reload() and page.inner_text("[data-number=requests]") == "1")
    before = page.inner_text("[data-number=balance]")
    check(call("/one", secret) == 200, "another request")
    if has_script:
        eventually("the balance moves", lambda: page.inner_text("[data-number=balance]") != before)
    page.goto(BASE + place + "/usage?range=24h")
    check("one" in page.inner_text("main table >> nth=-1"), "usage names the route")
    page.goto(BASE + place + "/credits")
    eventually("the charges are entries", lambda: page.reload() and "charge" in page.inner_text("main"))

    key = place + "/keys/" + page_key(page, place, "first")
    where = press(page, key, "/rotate", has_script)
    page.select_option(f"{where} select[name=overlap]", "1h")
    submit(page, f"{where} button[type=submit]")
    second = page.get_attribute("#secret", "data-secret") if has_script else page.inner_text("#secret")
    check(second != secret and call("/one", second) == 200 and call("/one", secret) == 200, "both secrets work")
    submit(page, "[data-saved]")
    check("The old key works until" in page.content(), "the overlap is told")
    used = lambda: page.reload() and re.search(r"[1-9]\d* requests? of the last hour used it", page.inner_text("main"))
    eventually("requests with the old secret are counted", used)
    if has_script:
        eventually("it counts down", lambda: re.search(r"0:59:\d\d left", page.inner_text("[data-until]")))
    submit(page, "text=End now")
    eventually("the old secret is refused", lambda: call("/one", secret) == 401, 1.5)
    where = press(page, key, "/rotate", has_script)
    submit(page, f"{where} button[type=submit]")
    third = page.get_attribute("#secret", "data-secret") if has_script else page.inner_text("#secret")
    check(call("/one", third) == 200, "the third secret works")
    eventually("the second is refused at once", lambda: call("/one", second) == 401, 1.5)
    submit(page, "[data-saved]")

    page.goto(BASE + key + "/edit")
    page.fill("#label", "second name")
    page.fill("#allow_from", "nowhere")
    page.check("input[name=scope][value=some]")
    page.check("input[name=route][value=one]")
    submit(page, "main button.primary")
    check(page.query_selector("#allow_from-error"), "a wrong network is told at its field")
    kept = [page.input_value("#label"), page.is_checked("input[name=route][value=one]")]
    check(kept == ["second name", True], "what was typed is kept")
    page.fill("#label", "first")
    page.fill("#allow_from", "")
    submit(page, "main button.primary")
    check("Key changed" in page.content() and call("/one", third) == 200, "the key is changed")

    where = press(page, key, "/revoke", has_script)
    page.fill(f"{where} input[name=name]", "wrong")
    submit(page, f"{where} button[type=submit]")
    check("this is not the key" in page.content() and call("/one", third) == 200, "a wrong name revokes nothing")
    page.fill("main input[name=name]", "first")
    submit(page, "main form button[type=submit]")
    eventually("a revoked key is refused within a second", lambda: call("/one", third) == 401, 1)
    check("Key revoked" in page.content(), "it says what happened")
    submit(page, ".app > .rail form button")
    page.goto(BASE + place)
    check("/sign-in" in page.url, "nothing is shown after signing out")
    sign_in(page, email)
    check(account(page) == place, "signed in again")
    context.close()


def codes(browser, has_script):
    """One-time codes and recovery codes."""
    context = browser.new_context(java_script_enabled=has_script)
    page = context.new_page()
    email = f"codes-{has_script}@example.com"
    sign_up(page, "Codes", email)
    before = context.cookies()[0]["value"]
    page.goto(BASE + "/settings/codes")
    check(page.query_selector(".qr svg"), "there is a picture to scan")
    secret = page.inner_text("#otp-secret")
    page.fill("#code", "000000")
    submit(page, "main button.primary")
    check(page.inner_text("#otp-secret") == secret, "a wrong code asks again with the same secret")
    first = code_of(secret)
    page.fill("#code", first)
    submit(page, "main button.primary")
    recovery = page.inner_text("#recovery").split()
    check(len(recovery) == 10, "ten recovery codes")
    check(context.cookies()[0]["value"] != before, "the session is a new one")
    page.goto(BASE + "/settings/codes/recovery")
    check(recovery[0] not in page.content(), "they are shown once")
    submit(page, ".app > .rail form button")
    sign_in(page, email)
    check(page.query_selector("#code"), "the password is not enough")
    page.fill("#code", first)
    submit(page, "button.primary")
    check("used already" in page.content(), "no code is accepted twice")
    page.fill("#code", recovery[3])
    submit(page, "button.primary")
    check("/accounts/" in page.url, "a recovery code signs in")
    submit(page, ".app > .rail form button")
    sign_in(page, email)
    page.fill("#code", recovery[3])
    submit(page, "button.primary")
    check("/accounts/" not in page.url, "but once")
    page.fill("#code", code_of(secret, time.time() + 30))
    submit(page, "button.primary")
    check("/accounts/" in page.url, "a fresh code signs in")
    context.close()


class Receiver(http.server.BaseHTTPRequestHandler):
    seen = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        Receiver.seen.append((self.headers["webhook-id"], json.loads(body)["type"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def webhooks(browser, has_script):
    """A test delivery, and a message that is sent again."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_context(java_script_enabled=has_script).new_page()
    sign_up(page, "Hooks", f"hooks-{has_script}@example.com")
    place = account(page)
    page.goto(BASE + place + "/webhooks")
    page.fill("#url", "ftp://no.example")
    submit(page, "main button.primary")
    check(page.query_selector("#url-error"), "a wrong URL is told at its field")
    page.fill("#url", f"http://127.0.0.1:{server.server_port}/hook")
    submit(page, "main button.primary")
    secret = page.get_attribute("#secret", "data-secret") if has_script else page.inner_text("#secret")
    check(secret.startswith("whsec_"), "the secret can be read")
    Receiver.seen.clear()
    submit(page, "text=Send a test")
    eventually("it arrives", lambda: [kind for _, kind in Receiver.seen] == ["webhook.test"])
    eventually("it is delivered", lambda: page.reload() and "delivered" in page.inner_text("main table"))
    submit(page, "text=Resend")
    eventually("it arrives again", lambda: len(Receiver.seen) == 2)
    check(Receiver.seen[0][0] == Receiver.seen[1][0], "as the same message")
    where = press(page, page.url.split("?")[0][len(BASE):], "/delete", has_script)
    submit(page, f"{where} button[type=submit]")
    check("Endpoint deleted" in page.content(), "it is deleted")
    server.shutdown()


def inert(browser, has_script):
    """Names of customers are never code, nor formulas in files."""
    bad = "<script>document.title='bad'</script><img src=x onerror=\"document.title='bad'\">"
    context = browser.new_context(java_script_enabled=has_script)
    page = context.new_page()
    messages = []
    page.on("console", lambda message: messages.append(message.text))
    sign_up(page, bad[:100], f"inert-{has_script}@example.com")
    place = account(page)
    for label in ["<script>alert(1)</script>", "=cmd()", "\"><b>x</b>"]:
        make_key(page, place, label)
    make = HERE["grant"]
    urllib.request.urlopen(urllib.request.Request(
        make["url"] + f"/v1{place}/grants", method="POST", data=json.dumps({"credits": 1, "reference": "=cmd()"}).encode(),
        headers={"authorization": "Bearer " + make["token"], "content-type": "application/json"}))
    for path in ["", "/keys", "/usage", "/credits", "/logs", "/webhooks", "/docs", "/team", "/audit"]:
        page.goto(BASE + place + path)
        check(not page.title().startswith("bad"), "a name was run on " + path)
        check(not page.query_selector("main script, main img[onerror], main b"), "a name became markup on " + path)
    check("=cmd()" in page.content(), "names are shown as they are")
    check(not [text for text in messages if "Content Security Policy" in text], messages)
    cookies = "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in context.cookies())
    for name in ["credits.csv", "usage.csv"]:
        request = urllib.request.Request(BASE + f"{place}/{name}", headers={"cookie": cookies})
        lines = urllib.request.urlopen(request).read().decode().splitlines()
        check(not any(re.search(r'(^|,)"?=', line) for line in lines), f"a formula in {name}")
        check(name != "credits.csv" or any("'=cmd()" in line for line in lines), "the reference is in the file")
    context.close()


def mail(browser, has_script):
    """Sign-up with a verified address, and sign-in by e-mail."""
    from aiosmtpd.controller import Controller

    class Box:
        letters = []

        async def handle_DATA(self, server, session, envelope):
            Box.letters.append((envelope.rcpt_tos[0], envelope.content.decode().replace("=\r\n", "").replace("=3D", "=")))
            return "250 kept"

    controller = Controller(Box(), hostname="127.0.0.1", port=HERE["smtp"])
    controller.start()
    try:
        def link(to):
            eventually("a letter to " + to, lambda: any(known == to for known, _ in Box.letters))
            text = [text for known, text in Box.letters if known == to][-1]
            Box.letters.clear()
            return re.search(r"http://\S+/link/\w+", text).group(0)

        page = browser.new_context(java_script_enabled=has_script).new_page()
        email = f"mail-{has_script}@example.com".lower()
        def ask():
            page.goto(BASE + "/sign-up")
            check(not page.query_selector("#password"), "no password before the address is verified")
            page.fill("#email", email)
            submit(page, "button.primary")

        ask()
        told = page.inner_text("main")
        check("e-mail" in told and "/accounts/" not in page.url, "nobody is signed in before the address is verified")
        verify = link(email)
        page.goto(verify)
        page.fill("#name", "Mail")
        page.fill("#password", PASSWORD)
        submit(page, "button.primary")
        check(page.goto(verify).status == 404, "the link is used once")
        page.goto(BASE)
        place = account(page)
        page.goto(BASE + place + "/credits")
        check("opening" in page.inner_text("main").lower() or "grant" in page.inner_text("main"), "the opening credits")
        submit(page, ".app > .rail form button")
        ask()
        check(page.inner_text("main") == told, "a known address is told the same")
        check(link(email), "and gets a letter")
        for to in [email, "nobody@example.com"]:
            page.goto(BASE + "/sign-in/link")
            page.fill("#email", to)
            submit(page, "button.primary")
            check(page.inner_text("main") == told, "the same for everybody")
        use_link(page, link(email))
        eventually("the first page leads on", lambda: "/accounts/" in page.url)
        check(account(page) == place, "a link signs in")
        check(not Box.letters, "nobody else gets a letter")
        alerts(page, place, Box, email, has_script)
    finally:
        controller.stop()


def alerts(page, place, box, email, has_script):
    """Somebody asks for e-mail about credits, gets one, and stops it."""
    page.goto(BASE + place + "/keys/new")
    page.fill("#label", "alerts")
    submit(page, "form button.primary")
    secret = shown_secret(page, has_script)
    submit(page, "[data-saved]")
    page.goto(BASE + place + "/credits")
    page.fill("#credits_low", "50")
    submit(page, "main form[action$='/alerts'] button")
    submit(page, "main form[action$='/mail'] button")
    check("You get an e-mail" in page.content(), "it says so")
    check(call("/one", secret) == 200, "a request that costs")
    eventually("a letter about credits", lambda: [to for to, text in box.letters if "Credits run low" in text] == [email])
    page.goto(BASE + place + "/webhooks")
    check("mailto:" + email in page.inner_text("main table"), "the address is listed with the endpoints")
    page.goto(BASE + place + "/credits")
    submit(page, "main form[action$='/mail'] button")
    check("no more e-mail" in page.content(), "it is stopped")
    page.goto(BASE + place + "/webhooks")
    check("mailto:" + email not in page.inner_text("main"), "and listed no more")
    page.fill("#url", "mailto:somebody@else.example")
    submit(page, "main button.primary")
    check(page.query_selector("#url-error"), "nobody else can be written to")


def buy(browser, has_script):
    """A customer buys credits on the payment service's page, and comes back."""
    page = browser.new_context(java_script_enabled=has_script).new_page()
    sign_up(page, "A Buyer", f"buyer-{has_script}@example.com")
    place = account(page)
    page.goto(BASE + place + "/credits")
    page.check("input[value=large]")
    page.click("text=Go to payment")
    page.wait_for_url("**/pay/*", timeout=20000)
    page.click("text=Pay now")
    page.wait_for_url("**/credits?done=paid", timeout=20000)
    check("Thank you" in page.inner_text("main"), "the way back says what comes")
    eventually("the payment is listed", lambda: page.reload() and "79.90 EUR" in page.inner_text("main"))
    check("10,050.5" in page.inner_text("main .tiles"), "the credits are there")

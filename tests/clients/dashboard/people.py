"""Who may do what: roles, operators, other sites; and whether every page is sound."""

import http.server
import os
import threading
from pathlib import Path

from browser import (BASE, HERE, PASSWORD, account, call, check, create_key, eventually, make_key, page_key, post, press,
                     shown_secret, sign_up, submit, use_link)

AXE = Path(__file__).resolve().parents[3] / "target/clients/node_modules/axe-core/axe.min.js"


def people(browser, has_script):
    """Invitations, and what each role sees and may do."""
    owner = browser.new_context(java_script_enabled=has_script).new_page()
    sign_up(owner, "Owner", f"owner-{has_script}@example.com")
    place = account(owner)
    create_key(owner, place, "theirs", False) if not has_script else make_key(owner, place, "theirs")
    key = place + "/keys/" + page_key(owner, place, "theirs")
    # What a role sees: (create keys, change webhooks, change alerts, change the team).
    table = {"viewer": (0, 0, 0, 0), "developer": (1, 1, 0, 0), "billing": (0, 0, 1, 0), "owner": (1, 1, 1, 1)}
    for role, (may_key, may_hook, may_alert, may_team) in table.items():
        owner.goto(BASE + place + "/team")
        owner.fill("#email", f"new-{role}-{has_script}@example.com")
        owner.select_option("#role", role)
        submit(owner, "button.primary")
        link = owner.inner_text("#invitation")
        context = browser.new_context(java_script_enabled=has_script)
        page = context.new_page()
        page.goto(link)
        check(role in page.inner_text("main"), "the invitation names the role")
        page.fill("#name", role)
        page.fill("#password", PASSWORD)
        submit(page, "button.primary")
        check(account(page) == place, f"{role} joins")
        again = context.new_page()
        check(again.goto(link).status == 404, "a link is used once")
        page.goto(BASE + place + "/keys")
        check(bool(page.query_selector("[data-create]")) == bool(may_key), f"{role}: create keys")
        page.goto(BASE + place + "/webhooks")
        check(bool(page.query_selector("#url")) == bool(may_hook), f"{role}: add endpoints")
        page.goto(BASE + place + "/credits")
        check(bool(page.query_selector("form[action$='/alerts'] button")) == bool(may_alert), f"{role}: alerts")
        page.goto(BASE + place + "/team")
        check(bool(page.query_selector("#email")) == bool(may_team), f"{role}: invite")
        # What is not shown is not allowed either.
        cookies = "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in context.cookies())
        for path, body, may in [(key + "/disable", "", may_key), (key + "/enable", "", may_key),
                                (place + "/webhooks", "url=x", may_hook),
                                (place + "/credits/alerts", "credits_low=5", may_alert),
                                (place + "/team", "email=x&role=viewer", may_team)]:
            status = post(path, body, cookies)
            check((status == 403) != bool(may), f"{role}: POST {path.rsplit('/', 1)[1]} is {status}")
        check(post("/operator/accounts", "id=x", cookies) == 404, "nobody of them is an operator")
        context.close()


def cross_site(browser, _):
    """A page of another site cannot write."""
    context = browser.new_context()
    page = context.new_page()
    sign_up(page, "Victim", "victim@example.com")
    place = account(page)
    form = f"<form method=post action='{BASE}{place}/team'><input name=email value=evil@example.com><input name=role value=owner></form><script>document.forms[0].submit()</script>"

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(form.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for host in ["127.0.0.1", "localhost"]:  # the same site on another port, and another site
        other = context.new_page()
        statuses = []
        other.on("response", lambda response: statuses.append((response.request.method, response.status)))
        other.goto(f"http://{host}:{server.server_port}/")
        eventually("it is tried", lambda: any(method == "POST" for method, _ in statuses) or other.wait_for_timeout(100))
        check(("POST", 403) in statuses, f"refused from {host}: {statuses}")
    page.goto(BASE + place + "/team")
    check("evil@example.com" not in page.content(), "nobody was invited")
    server.shutdown()


def pages(page, place, key):
    of_account = ["", "/keys", "/keys/new", f"/keys/{key}", f"/keys/{key}/edit", f"/keys/{key}/rotate",
                  f"/keys/{key}/revoke", "/usage", "/usage?range=custom&group=status", "/credits", "/groups", "/logs", "/webhooks",
                  "/docs", "/team", "/audit"]
    operator = ["", "/accounts", "/accounts/new", place.replace("/accounts/", "/accounts/"), "/routes", "/upstreams",
                "/webhooks", "/ledger", "/config", "/team", "/tokens", "/audit"]
    return [place + path for path in of_account] + ["/operator" + path for path in operator] + ["/settings",
                                                                                              "/settings/codes"]


def sound(browser, _):
    """No page has a fault that axe finds, light or dark; none is wider than a small screen; none is large or slow."""
    state = operator_state(browser)
    place, key = HERE["account"], HERE["key"]
    faults, times = [], []
    folder = os.environ.get("TOLLGATE_SCREENSHOTS")
    modes = {"light": {}, "dark": {"color_scheme": "dark"}, "narrow": {"viewport": {"width": 360, "height": 780}},
             "wide": {"viewport": {"width": 1920, "height": 1080}}}
    for mode, options in modes.items():
        context = browser.new_context(storage_state=state, **options)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"{mode}: {error}"))
        outside = browser.new_context(**options).new_page()
        for path in pages(page, place, key) + ["/sign-in", "/sign-up", "/sign-in/link"]:
            shown = outside if path.startswith("/sign-") else page
            response = shown.goto(BASE + path)
            if response.status != 200:
                faults.append(f"{path} is {response.status}")
            if len(response.body()) > 60_000:
                faults.append(f"{path} has {len(response.body())} bytes")
            width = shown.evaluate("document.documentElement.scrollWidth")
            if width > shown.viewport_size["width"]:
                faults.append(f"{path} is {width} wide in {mode}")
            if folder:
                shown.screenshot(path=f"{folder}/{path.strip('/').replace('/', '-').replace('?', '-') or 'first'}-{mode}.png", full_page=True)
            if mode in ("light", "dark"):
                shown.evaluate(AXE.read_text())
                found = shown.evaluate("axe.run(document, {resultTypes: ['violations']})")
                for fault in found["violations"]:
                    where = [node["target"] for node in fault["nodes"]][:3]
                    faults.append(f"{path} in {mode}: {fault['id']}: {fault['help']} {where}")
        context.close()
    check(not faults, "\n".join(faults))


def operator_state(browser):
    context = browser.new_context()
    page = context.new_page()
    use_link(page, HERE["operator"])
    check(page.url.endswith("/operator"), "the operator is signed in")
    state = context.storage_state()
    context.close()
    return state


def operators(browser, has_script):
    """What the operator does: accounts, credits, approval, users, tokens, the ledger, the configuration."""
    context = browser.new_context(java_script_enabled=has_script)
    page = context.new_page()
    use_link(page, HERE["operator"])
    page.goto(BASE + "/operator/accounts/new")
    page.fill("#id", "Not an id!")
    submit(page, "main button.primary")
    check(page.query_selector("#id-error"), "a wrong id is told at its field")
    page.fill("#id", "globex")
    page.fill("#credits", "10")
    submit(page, "main button.primary")
    check("Account created" in page.content(), "an account is created")
    page.fill("#credits", "2.5")
    page.fill("#reference", "invoice-1")
    submit(page, "main form[action$='/book'] button")
    check("12.5" in page.inner_text("main .tiles"), "credits are booked")
    page.fill("#credits", "2.5")
    page.fill("#reference", "invoice-1")
    submit(page, "main form[action$='/book'] button")
    check("12.5" in page.inner_text("main .tiles"), "but not twice")
    where = press(page, "/operator/accounts/globex", "/suspend", has_script)
    check("Suspend globex" in page.inner_text(where), "it asks before it suspends")
    submit(page, f"{where} button[type=submit]")
    check("suspended" in page.inner_text("main .tiles"), "it is suspended")
    submit(page, "main form[action$='/resume'] button")
    page.goto(BASE + "/operator/ledger")
    submit(page, "main form[action$='/verify'] button")
    check("Consistent" in page.content(), "the ledger is checked")
    page.goto(BASE + "/operator/tokens")
    page.fill("#name", "ci")
    submit(page, "main form[action='/operator/tokens'] button")
    token = page.get_attribute("#secret", "data-secret") if has_script else page.inner_text("#secret")
    check(token.startswith("tollgate_support_"), "a token is shown once")
    page.goto(BASE + "/operator/tokens")
    check(not page.query_selector("#secret"), "and no more")
    where = press(page, "/operator/tokens", "/operator/tokens/ci/revoke", has_script)
    submit(page, f"{where} button[type=submit]")
    check("Token revoked" in page.content() and "revoked" in page.inner_text("main table"), "it is revoked")
    use_account(browser, page, has_script)
    page.goto(BASE + "/operator/config")
    submit(page, "main form[action$='/reload'] button")
    check("read again" in page.content(), "the configuration is read again")
    page.goto(BASE + "/operator/audit")
    check("operator:operator@example.com" in page.inner_text("main"), "all of it is in the audit log")
    context.close()


def use_account(browser, page, has_script):
    """The numbers of the overview move; users are disabled and deleted."""
    page.goto(BASE + "/operator")
    before = page.inner_text("[data-number=requests]")
    other = browser.new_context(java_script_enabled=has_script).new_page()
    sign_up(other, "Somebody", "somebody@example.com")
    other.goto(BASE + account(other) + "/keys/new")
    other.fill("#label", "a key")
    submit(other, "form button.primary")
    secret = shown_secret(other, has_script)
    check(call("/one", secret) == 200, "a customer's key works")
    moved = lambda: page.inner_text("[data-number=requests]") != before
    eventually("the operator sees the request", moved if has_script else lambda: page.reload() and moved())
    for what, said in [("disable", "User changed"), ("delete", "User deleted")]:
        page.goto(BASE + "/operator/team")
        row = page.locator("tr", has_text="somebody@example.com")
        link = row.locator(f"a[href$='/{what}']").get_attribute("href")
        where = press(page, "/operator/team", link, has_script)
        check("somebody@example.com" in page.inner_text(where), "it asks about the user")
        submit(page, f"{where} button[type=submit]")
        check(said in page.content(), said)
        other.goto(BASE + "/settings")
        check("/sign-in" in other.url, "they are signed out")
    check("somebody@example.com" not in page.inner_text("main"), "the user is gone")
    check(call("/one", secret) == 200, "the account and its key stay")

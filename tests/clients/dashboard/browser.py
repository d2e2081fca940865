"""What all scenarios share: a browser, the gateway, and what people do again and again."""

import base64
import hashlib
import hmac
import json
import re
import struct
import sys
import time
import urllib.error
import urllib.request

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
PASSWORD = "correct horse battery"
# The dashboard (`url`), the gateway (`api`), and what else a scenario needs.
HERE = json.loads(sys.argv[2])
BASE, API = HERE["url"], HERE["api"]


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def call(path, key=None, base=None):
    """A request through the gateway: its status."""
    request = urllib.request.Request((base or API) + path, headers={"x-api-key": key} if key else {})
    try:
        return urllib.request.urlopen(request, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code


def eventually(what, condition, patience=20):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("not in time: " + what)


def code_of(secret, at=None):
    """A one-time code (RFC 6238)."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.new(key, struct.pack(">Q", int(at or time.time()) // 30), hashlib.sha1).digest()
    offset = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[offset:offset + 4])[0] & 0x7fffffff) % 1000000:06}"


def submit(page, selector):
    """Presses a button that leads to another page."""
    with page.expect_navigation():
        page.click(selector)


def sign_up(page, name, email):
    page.goto(BASE + "/sign-up")
    page.fill("#name", name)
    page.fill("#email", email)
    page.fill("#password", PASSWORD)
    submit(page, "button.primary")


def sign_in(page, email, password=PASSWORD):
    page.goto(BASE + "/sign-in")
    page.fill("#email", email)
    page.fill("#password", password)
    submit(page, "form button.primary")


def use_link(page, link):
    page.goto(link)
    submit(page, "button.primary")


def account(page):
    return re.search(r"/accounts/[^/?]+", page.url).group(0)


def create_key(page, place, label, has_script):
    page.goto(BASE + place + "/keys/new")
    page.fill("#label", label)
    submit(page, "form button.primary")
    check(page.url.endswith("/secret"), "the key is shown on a page of its own")
    check("secret" not in page.url.split("/keys/")[1].replace("/secret", ""), "no secret in the address")
    secret = page.get_attribute("#secret", "data-secret") if has_script else page.inner_text("#secret")
    check(secret.startswith("ak_live_"), "the whole key is there once")
    if has_script:
        check(page.inner_text("#secret") != secret, "it is masked")
        page.click("[data-reveal=secret]")
        check(page.inner_text("#secret") == secret, "it can be revealed")
        page.click("[data-copy=secret]")
        eventually("it says that it is copied", lambda: page.inner_text("[data-copy=secret]") == "Copied", 5)
        check(page.evaluate("navigator.clipboard.readText()") == secret, "the clipboard has it")
    submit(page, "[data-saved]")
    page.go_back()
    page.reload()
    check(secret not in page.content() and not page.url.endswith("/secret"), "a reload shows it no more")
    return secret


def shown_secret(page, has_script):
    """The secret that a page shows once."""
    return page.get_attribute("#secret", "data-secret") if has_script else page.inner_text("#secret")


def press(page, place, link, has_script):
    """Opens a question: a dialog over the page, or a page of its own."""
    page.goto(BASE + place)
    page.click(f"main a[href$='{link}']")
    if has_script:
        page.wait_for_selector("dialog[open]")
        check(page.evaluate("document.activeElement.hasAttribute('data-cancel')"), "the focus starts on Cancel")
        return "dialog"
    page.wait_for_url("**" + link)
    return "main"


def page_key(page, place, label):
    page.goto(BASE + place + "/keys?status=all")
    return page.get_attribute(f"td a:text-is('{label}')", "href").rsplit("/", 1)[1]


def make_key(page, place, label):
    page.goto(BASE + place + "/keys/new")
    page.fill("#label", label)
    submit(page, "form button.primary")
    submit(page, "[data-saved]")


class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def post(path, body, cookies, headers=None):
    """A write without a browser: its status."""
    request = urllib.request.Request(BASE + path, data=body.encode(), method="POST", headers={
        "cookie": cookies, "content-type": "application/x-www-form-urlencoded", **(headers or {})})
    try:
        return urllib.request.build_opener(Stay).open(request, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code

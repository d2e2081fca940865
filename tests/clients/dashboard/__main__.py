"""Uses the dashboard in a real browser: `python tests/clients/dashboard SCENARIO JSON`.

Exits with 1 and says what was unexpected. Secrets are never printed."""

import sys

from playwright.sync_api import sync_playwright

import customers
import people
from browser import CHROMIUM, FLAGS, HERE

SCENARIOS = {scenario.__name__: scenario for scenario in
             [customers.keys, customers.codes, customers.webhooks, customers.inert, customers.mail, customers.buy, people.people,
              people.cross_site, people.sound, people.operators]}

try:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            SCENARIOS[sys.argv[1]](browser, HERE.get("script", True))
        finally:
            browser.close()
except AssertionError as error:
    sys.exit(f"{sys.argv[1]}: {error}")

//! Who sees what, and what no page does without.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Portal, cookie};
use crate::support::{eventually, get, post};

const HEADERS: [(&str, &str); 5] = [
    ("x-frame-options", "DENY"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// Promise: the gateway's own listeners never serve a page, and every page has its protection.
#[test]
fn every_page_is_protected_and_none_is_on_the_gateways_listeners() {
    let portal = Portal::start("");
    let cookie = portal.member("beta", "owner");
    for path in ["/sign-in", "/sign-up", "/accounts/beta", "/accounts/beta/keys", "/settings", "/nowhere"] {
        let page = portal.page(path, &cookie);
        for (name, value) in HEADERS {
            assert_eq!(page.header(name), Some(value), "{path}");
        }
        let policy = page.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(
            !page.text().contains(" style=") && !page.text().contains("onclick="),
            "{path}: nothing inline"
        );
        assert_eq!(page.header("strict-transport-security"), None, "plain HTTP");
        for other in [portal.gateway.public, portal.gateway.admin] {
            let response = get(other, path, &format!("cookie: {cookie}\r\n"));
            assert!(!response.text().contains("<html"), "{path} on {other}");
        }
    }
}

/// Over HTTPS, cookies are kept to HTTPS and to this host, and browsers are told to use nothing else.
#[test]
fn over_https_cookies_are_kept_to_it() {
    let portal = Portal::start("url = \"https://portal.example.com\"\n");
    let body = "name=a&email=a%40example.com&password=a+long+password";
    let response = portal.form("/sign-up", "", body);
    let set = response.header("set-cookie").unwrap();
    assert!(set.starts_with("__Host-tollgate="), "the name");
    for part in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
        assert!(set.contains(part), "{part}");
    }
    assert!(response.header("strict-transport-security").is_some());
    let link = portal.api.ok("POST", "/v1/invitations", Some(&json!({ "email": "b@example.com" })));
    assert!(link["link"].as_str().unwrap().starts_with("https://portal.example.com/link/"));
}

/// Writes from other sites are refused by what browsers say about them.
#[test]
fn writes_from_other_sites_are_refused() {
    let portal = Portal::start("url = \"https://portal.example.com\"\n");
    let refused = [
        "sec-fetch-site: cross-site\r\n",
        "sec-fetch-site: same-site\r\n",
        "origin: https://evil.example\r\n",
        "origin: null\r\n",
    ];
    for headers in refused {
        for path in ["/sign-in", "/sign-up", "/sign-out", "/accounts/beta/keys", "/operator/accounts"] {
            assert_eq!(post(portal.pages, path, headers, "").status, 403, "{path} with {headers}");
        }
    }
    let own = [
        "sec-fetch-site: same-origin\r\n",
        "sec-fetch-site: none\r\n",
        "origin: https://portal.example.com\r\n",
        "",
    ];
    for headers in own {
        assert_ne!(post(portal.pages, "/sign-out", headers, "").status, 403, "{headers}");
    }
}

/// For a customer, other accounts and the operator's pages do not exist: the same 404 as for what is nowhere.
#[test]
fn another_accounts_pages_do_not_exist() {
    let portal = Portal::start("");
    let (own, _) = (portal.member("beta", "owner"), portal.member("other", "owner"));
    let key = portal.api.ok("POST", "/v1/accounts/other/keys", Some(&json!({ "label": "k" })));
    let hook = json!({ "url": "http://127.0.0.1:9/hook" });
    let hook = portal.api.ok("POST", "/v1/accounts/other/webhooks", Some(&hook));
    let (key, hook) = (key["id"].as_str().unwrap(), hook["id"].as_str().unwrap());
    let mut paths =
        vec!["/operator".to_owned(), "/operator/accounts".to_owned(), "/operator/config".to_owned()];
    for account in ["other", "beta"] {
        for page in [format!("keys/{key}"), format!("keys/{key}/edit"), format!("webhooks/{hook}")] {
            paths.push(format!("/accounts/{account}/{page}"));
        }
    }
    for page in [
        "",
        "/keys",
        "/usage",
        "/usage.csv",
        "/credits",
        "/credits.csv",
        "/logs",
        "/webhooks",
        "/docs",
        "/team",
        "/audit",
        "/live",
    ] {
        paths.push(format!("/accounts/other{page}"));
        paths.push(format!("/accounts/nobody{page}"));
    }
    for path in &paths {
        assert_eq!(portal.page(path, &own).status, 404, "{path}");
    }
    for path in [
        format!("keys/{key}/disable"),
        format!("keys/{key}/rotate"),
        format!("webhooks/{hook}/test"),
        format!("webhooks/{hook}/delete"),
    ] {
        for account in ["other", "beta"] {
            assert_eq!(
                portal.form(&format!("/accounts/{account}/{path}"), &own, "").status,
                404,
                "{account}/{path}"
            );
        }
    }
    let state = portal.api.get(&format!("/v1/keys/{key}"));
    assert_eq!(state["state"], "active", "nothing was changed");
    let page = portal.page("/accounts/beta", "");
    assert_eq!((page.status, page.header("location")), (303, Some("/sign-in?next=/accounts/beta")));
}

/// A session ends when it is revoked, when the user may not sign in any more, and when their rights change.
#[test]
fn sessions_end_when_they_should() {
    let portal = Portal::start("");
    let (first, user) = (portal.member("beta", "owner"), portal.api.get("/v1/users/owner@beta.example"));
    let id = user["id"].as_str().unwrap();
    let again = || {
        let link = portal.api.ok("POST", &format!("/v1/users/{id}/sign-in-link"), None);
        portal.open(link["link"].as_str().unwrap())
    };
    let status = |cookie: &str| portal.page("/accounts/beta", cookie).status;
    let second = again();
    assert_eq!((status(&first), status(&second)), (200, 200));
    assert_eq!(portal.form("/settings/sessions/end", &second, "").status, 303);
    assert_eq!((status(&first), status(&second)), (303, 200), "all but the own session end");
    assert_eq!(portal.form("/sign-out", &second, "").status, 303);
    assert_eq!(status(&second), 303, "signed out");
    let third = again();
    let body = json!({ "role": "viewer" });
    portal.api.ok("PATCH", &format!("/v1/accounts/beta/members/{id}"), Some(&body));
    assert_eq!(status(&third), 303, "the role changed");
    let fourth = again();
    let changed = portal.form("/settings/password", &fourth, "password=another+long+one");
    assert_eq!(
        (status(&fourth), status(&cookie(&changed))),
        (303, 200),
        "a new session after a new password"
    );
    let fifth = again();
    portal.api.ok("PATCH", &format!("/v1/users/{id}"), Some(&json!({ "disabled": true })));
    assert_eq!(status(&fifth), 303, "disabled");
    let sign_in = portal.form("/sign-in", "", "email=owner%40beta.example&password=another+long+one");
    assert_eq!(sign_in.status, 403);
}

/// A portal link signs a person of the operator's own site in to one account, once, and they are no user.
#[test]
fn a_person_of_the_operators_site_is_handed_over() {
    let portal = Portal::start("");
    portal.api.ok("POST", "/v1/accounts", Some(&json!({ "id": "beta" })));
    let body = json!({ "account": "beta", "role": "developer", "person": "customer 42" });
    let made = portal.api.ok("POST", "/v1/portal/sessions", Some(&body));
    let link = made["link"].as_str().unwrap();
    let path = format!("/link/{}", link.split_once("/link/").unwrap().1);
    assert_eq!(portal.page(&path, "").status, 200, "looking at a link does not use it");
    let cookie = portal.open(link);
    assert_eq!(portal.form(&path, "", "").status, 404, "it is used once");
    assert_eq!(portal.page("/accounts/beta/keys", &cookie).status, 200);
    assert_eq!(portal.page("/settings", &cookie).status, 403, "there is no user");
    let made = portal.form("/accounts/beta/keys", &cookie, "label=theirs&scope=all");
    assert_eq!(made.status, 303);
    let entry = portal.api.get("/v1/audit?limit=1")["data"][0].clone();
    assert_eq!((&entry["by"], &entry["action"]), (&json!("portal:customer 42"), &json!("key.create")));
    let invite =
        |cookie: &str| portal.form("/accounts/beta/team", cookie, "email=x%40example.com&role=owner").status;
    assert_eq!(invite(&cookie), 403);
    let made =
        portal.api.ok("POST", "/v1/portal/sessions", Some(&json!({ "account": "beta", "role": "owner" })));
    let owner = portal.open(made["link"].as_str().unwrap());
    assert_eq!(invite(&owner), 403, "who is handed over for a day gives nobody lasting access");
}

/// Accounts that sign up get the plan and credits once an operator approves, and once.
#[test]
fn accounts_wait_for_approval() {
    let upstream = crate::support::Upstream::start();
    let config = super::open_config("sandbox_plan = \"sandbox\"\n[plans.sandbox]\nlimits = []\n");
    let config = config.replace("sign_up = \"open\"", "sign_up = \"approval\"");
    let gateway = crate::support::Gateway::start(&config, &upstream);
    let (pages, api) = (gateway.dashboard(), crate::api::Api::of(&gateway));
    let headers = "content-type: application/x-www-form-urlencoded\r\n";
    let form = "name=New&email=new%40example.com&password=a+long+password";
    let made = post(pages, "/sign-up", headers, form);
    let account = made.header("location").unwrap().rsplit('/').next().unwrap().to_owned();
    let show = || api.get(&format!("/v1/accounts/{account}"));
    assert_eq!((&show()["plan"], &show()["balance"]), (&json!("sandbox"), &json!(0)));
    let approve = format!("/v1/accounts/{account}/approve");
    api.ok("POST", &approve, None);
    assert_eq!((&show()["plan"], &show()["balance"]), (&json!("growth"), &json!(50)));
    assert_eq!(api.send("POST", &approve, "", None).status, 404, "once");
    let made = post(pages, "/sign-up", headers, &form.replace("new", "other"));
    let account = made.header("location").unwrap().rsplit('/').next().unwrap().to_owned();
    let portal = Portal { gateway, _upstream: upstream, pages, api };
    let operator = portal.signed_in(&json!({ "email": "op@example.com", "operator": "owner" }));
    let page = format!("/operator/accounts/{account}/decline");
    assert!(portal.page(&page, &operator).text().contains("closed for good"), "it asks first");
    assert_eq!(portal.form(&page, &operator, "").status, 303);
    assert_eq!(portal.api.get(&format!("/v1/accounts/{account}"))["state"], "closed");
    assert_eq!(portal.form(&page, &operator, "").status, 404, "it waits no longer");
}

/// "Read only" allows the routes that have no method but GET and HEAD.
#[test]
fn a_key_that_only_reads_may_call_routes_that_only_read() {
    let reads = "[[routes]]\nname = \"reads\"\npath = \"/reads\"\nupstream = \"api\"\nmethods = [\"GET\"]\n";
    let portal = Portal::start(reads);
    let cookie = portal.member("beta", "developer");
    assert_eq!(portal.form("/accounts/beta/keys", &cookie, "label=r&scope=reading").status, 303);
    let keys = portal.api.get("/v1/accounts/beta/keys");
    assert_eq!(keys["data"][0]["scopes"], json!(["reads"]), "{keys}");
}

/// Days begin at midnight of the chosen time zone, and the sums are the same in all zones.
#[test]
fn usage_is_shown_in_a_time_zone() {
    let portal = Portal::start("");
    let cookie = portal.member("beta", "viewer");
    let key = portal.api.ok("POST", "/v1/accounts/beta/keys", Some(&json!({ "label": "k" })));
    let header = format!("x-api-key: {}\r\n", key["key"].as_str().unwrap());
    (0..2).for_each(|_| assert_eq!(get(portal.gateway.public, "/one", &header).status, 200));
    for (zone, midnight) in [(0, "T00:00:00"), (120, "T22:00:00"), (-660, "T11:00:00")] {
        let path = format!("/accounts/beta/usage.csv?range=7d&group=status&zone={zone}");
        let started = Instant::now();
        let rows = loop {
            let text = portal.page(&path, &cookie).text();
            let rows: Vec<Vec<String>> =
                text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect();
            let requests: u64 = rows.iter().map(|row| row[2].parse::<u64>().unwrap()).sum();
            if requests == 2 {
                break rows;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "zone {zone}: {text}");
            std::thread::sleep(Duration::from_millis(200));
        };
        assert!(rows.iter().all(|row| row[0].contains(midnight)), "zone {zone}: {rows:?}");
    }
}

/// Many attempts to sign in are throttled, per address and per user, and say and take the same for every user.
#[test]
fn attempts_are_throttled_and_tell_no_users_apart() {
    let portal = Portal::start("");
    let sign_up = "name=a&email=known%40example.com&password=a+long+password";
    assert_eq!(portal.form("/sign-up", "", sign_up).status, 303);
    let attempt = |email: &str| {
        let started = Instant::now();
        let response = portal.form("/sign-in", "", &format!("email={email}&password=wrong+wrong+wrong"));
        (
            response.status,
            response.text().replace(email, "").replace(&email.replace("%40", "@"), ""),
            started.elapsed(),
        )
    };
    let (known, unknown) = ("known%40example.com", "unknown%40example.com");
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        for (email, times) in [known, unknown].iter().zip(&mut times) {
            let (status, text, time) = attempt(email);
            assert_eq!(status, 403);
            assert_eq!(text, attempt(unknown).1, "the same words");
            times.push(time);
        }
    }
    for times in &mut times {
        times.sort_unstable();
        assert!(times[1] > Duration::from_millis(5), "both hash a password: {times:?}");
    }
    let mut throttled = 0;
    for number in 0..10_000_u32 {
        let email = if number % 2 == 0 { known.to_owned() } else { format!("u{number}%40example.com") };
        match attempt(&email).0 {
            429 => throttled += 1,
            403 => {}
            other => panic!("{other}"),
        }
    }
    assert!(throttled > 9_900, "{throttled} of 10,000 were throttled");
    eventually("the gateway serves meanwhile", || {
        get(portal.gateway.public, "/one", "x-api-key: good-key\r\n").status == 200
    });
}

/// `billing.top_up_requested` is sent once when the balance falls, and again after a grant that answered it.
#[test]
fn top_ups_are_asked_for_once_until_they_are_granted() {
    let portal = Portal::start("");
    let owner = portal.member("beta", "owner");
    portal.api.ok("POST", "/v1/webhooks", Some(&json!({ "url": "http://127.0.0.1:9/billing" })));
    let saved =
        portal.form("/accounts/beta/credits/renewal", &owner, "below=49&top_up=5&every=30d&renew=100");
    assert_eq!(saved.header("location"), Some("/accounts/beta/credits?done=renewal-saved"));
    let key = portal.api.ok("POST", "/v1/accounts/beta/keys", Some(&json!({ "label": "k" })));
    let headers = format!("x-api-key: {}\r\n", key["key"].as_str().unwrap());
    let hooks = portal.api.get("/v1/webhooks");
    let path = format!("/v1/webhooks/{}/deliveries", hooks[0]["id"].as_str().unwrap());
    let asked = || {
        let data = portal.api.get(&path)["data"].clone();
        data.as_array().unwrap().iter().filter(|row| row["event"] == "billing.top_up_requested").count()
    };
    let spend = || assert_eq!(get(portal.gateway.public, "/one", &headers).status, 200);
    spend();
    portal.api.get("/v1/accounts/beta"); // folds
    assert_eq!(asked(), 0, "49 is not below 49");
    for _ in 0..3 {
        spend();
    }
    eventually("it is asked for", || portal.api.get("/v1/accounts/beta")["balance"] == 46 && asked() == 1);
    let grant = json!({ "credits": 5, "reference": "top-up-1" });
    portal.api.ok("POST", "/v1/accounts/beta/grants", Some(&grant));
    portal.api.ok("POST", "/v1/accounts/beta/grants", Some(&grant)); // repeated by a careful billing: granted once
    assert_eq!(portal.api.get("/v1/accounts/beta")["balance"], 51);
    for _ in 0..3 {
        spend();
    }
    eventually("it is asked for again", || {
        portal.api.get("/v1/accounts/beta")["balance"] == 48 && asked() == 2
    });
    let renewal = portal.api.get("/v1/accounts/beta/renewal");
    assert_eq!(renewal["auto_renew"]["every"], "30d");
    assert!(renewal["auto_renew"]["next"].is_string());
}

/// Creates a key with a form. Returns the key, which the next page shows.
fn made_key(portal: &Portal, cookie: &str, form: &str) -> String {
    let made = portal.form("/accounts/beta/keys", cookie, form);
    let page =
        portal.page(made.header("location").unwrap_or_else(|| panic!("{}", made.status)), cookie).text();
    let (_, rest) = page.split_once("data-secret=\"\">").unwrap();
    rest.split('<').next().unwrap().to_owned()
}

/// A key's own limit only adds to those of the plan: it may be lower, and lifts nothing.
#[test]
fn a_keys_own_limit_adds_to_the_plans() {
    let portal = Portal::start("");
    let owner = portal.member("beta", "owner");
    let served = |key: &str, most: usize| {
        let headers = format!("x-api-key: {key}\r\n");
        (0..most).filter(|_| get(portal.gateway.public, "/free/x", &headers).status == 200).count()
    };
    let low = made_key(&portal, &owner, "label=low&scope=all&limits=2&window=86400s");
    assert_eq!(served(&low, 5), 2);
    let high = made_key(&portal, &owner, "label=high&scope=all&limits=5000&window=60s");
    let (start, count) = (Instant::now(), served(&high, 110));
    let free_again = (start.elapsed().as_millis() / 600) as usize + 1; // the plan's limit is 100 in 60 s
    assert!((100..=100 + free_again).contains(&count), "{count}");
}

/// A later invitation takes the place of an earlier one, and one that was used gives nothing again.
#[test]
fn an_invitation_is_good_for_one_role_once() {
    let portal = Portal::start("");
    portal.member("beta", "owner");
    let invite = |role: &str| {
        let body = json!({ "email": "new@example.com", "account": "beta", "role": role });
        portal.api.ok("POST", "/v1/invitations", Some(&body))["link"].as_str().unwrap().to_owned()
    };
    let path = |link: &str| format!("/link/{}", link.split_once("/link/").unwrap().1);
    let (first, second) = (invite("owner"), invite("viewer"));
    assert_eq!(portal.page(&path(&first), "").status, 404, "the earlier one");
    let joined = portal.form(&path(&second), "", "name=New&password=a+long+password");
    let new = cookie(&joined);
    assert_eq!(portal.page("/accounts/beta", &new).status, 200);
    assert_eq!(portal.form("/accounts/beta/keys", &new, "label=x&scope=all").status, 403, "a viewer");
    assert_eq!(portal.form(&path(&second), &new, "").status, 404, "once");
}

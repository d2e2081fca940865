//! The frame around pages: head, rail, and the page's own head.

use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::icons::icon;
use crate::control::dashboard::assets::{SCRIPT, STYLE};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::Notice;
use crate::control::operations::{Permission, Person, Visitor};
use crate::ledger::store::Role;
use crate::types::AccountId;

/// Which page is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control::dashboard) enum Place<'a> {
    /// A page of an account, by the last part of its address.
    Account(&'a AccountId, &'static str),
    /// A page of the operator.
    Operator(&'static str),
    /// A page about the reader.
    Own,
}

/// What surrounds a page.
pub(in crate::control::dashboard) struct Frame<'a> {
    pub(in crate::control::dashboard) site: &'a Site,
    pub(in crate::control::dashboard) visitor: &'a Visitor,
    pub(in crate::control::dashboard) place: Place<'a>,
    /// The page's title.
    pub(in crate::control::dashboard) title: &'a str,
    /// One line about what it is for.
    pub(in crate::control::dashboard) about: &'a str,
    /// The one primary action.
    pub(in crate::control::dashboard) action: Option<Markup>,
    /// What has just happened.
    pub(in crate::control::dashboard) notice: Option<Notice>,
}

const ACCOUNT_PAGES: [(&str, &str); 9] = [
    ("", "Overview"),
    ("keys", "Keys"),
    ("usage", "Usage"),
    ("credits", "Credits"),
    ("logs", "Logs"),
    ("webhooks", "Webhooks"),
    ("docs", "Docs"),
    ("team", "Team"),
    ("audit", "Audit"),
];
const OPERATOR_PAGES: [(&str, &str); 10] = [
    ("", "Overview"),
    ("accounts", "Accounts"),
    ("routes", "Routes and plans"),
    ("upstreams", "Upstreams"),
    ("webhooks", "Webhooks"),
    ("ledger", "Ledger"),
    ("config", "Configuration"),
    ("team", "Users"),
    ("tokens", "Tokens"),
    ("audit", "Audit"),
];

/// The pages that an operator with a role may open.
fn operator_pages(role: Option<Role>) -> Vec<(&'static str, &'static str)> {
    let needs = |page: &str| match page {
        "routes" | "upstreams" | "config" | "tokens" | "audit" | "team" => Permission::ReadAll,
        _ => Permission::ReadAccounts,
    };
    let may = |page: &str| role.is_some_and(|role| needs(page).is_of(role));
    OPERATOR_PAGES.into_iter().filter(|(page, _)| may(page)).collect()
}

fn head(title: &str, name: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="robots" content="noindex";
            title { (title) " · " (name) }
            link rel="stylesheet" href=(STYLE.path);
            link rel="stylesheet" href="/assets/brand.css";
            link rel="icon" href="/assets/icon.svg";
            script src=(SCRIPT.path) defer {}
        }
    }
}

/// The name or logo of the API.
fn mark(site: &Site, to: &str) -> Markup {
    let (name, has_logo) = site.brand();
    html! {
        a.mark href=(to) {
            @if has_logo { img src="/assets/logo" alt=(name); } @else { span.dot {} span { (name) } }
        }
    }
}

fn links(base: &str, pages: &[(&str, &str)], open: Option<&str>) -> Markup {
    html! {
        @for (page, name) in pages {
            @let to = if page.is_empty() { base.to_owned() } else { format!("{base}/{page}") };
            a href=(to) aria-current=[(open == Some(*page)).then_some("page")] {
                (icon(if page.is_empty() { "overview" } else { page })) (name)
            }
        }
    }
}

impl Frame<'_> {
    fn rail(&self, label: &str) -> Markup {
        let operator = self.visitor.operator();
        let account = match self.place {
            Place::Account(account, page) => Some((account.clone(), Some(page))),
            Place::Own => self.visitor.accounts.first().map(|(account, _)| (account.clone(), None)),
            Place::Operator(_) => None,
        };
        let shows_operator = operator.is_some() && !matches!(self.place, Place::Account(..));
        html! {
            nav aria-label=(label) {
                @if let Some((account, page)) = &account {
                    @if operator.is_some() {
                        a href="/operator" { (icon("audit")) "Back to the operator" }
                        span.group { "Account " (account) }
                    }
                    (links(&format!("/accounts/{account}"), &ACCOUNT_PAGES, *page))
                }
                @if shows_operator {
                    (links("/operator", &operator_pages(operator), match self.place { Place::Operator(page) => Some(page), _ => None }))
                }
            }
            (self.foot())
        }
    }

    /// Who is signed in, and their other accounts.
    fn foot(&self) -> Markup {
        let current = match self.place {
            Place::Account(account, _) => Some(account),
            _ => None,
        };
        html! {
            div.foot {
                @if self.visitor.accounts.len() > 1 {
                    details {
                        summary { "Accounts" }
                        nav aria-label="Accounts" {
                            @for (account, _) in &self.visitor.accounts {
                                a href={ "/accounts/" (account) } aria-current=[(Some(account) == current).then_some("true")] { (account) }
                            }
                        }
                    }
                }
                @match &self.visitor.person {
                    Person::User(user) => {
                        div.who {
                            div { (user.email) }
                            @if let Some(role) = user.operator { div.quiet { "Operator, " (role.name()) } }
                        }
                        nav aria-label="You" {
                            a href="/settings" aria-current=[(self.place == Place::Own).then_some("page")] { (icon("settings")) "Settings" }
                        }
                    }
                    Person::Guest(name) => div.who { (name) },
                }
                form method="post" action="/sign-out" { div.who { button.link type="submit" { "Sign out" } } }
            }
        }
    }

    /// Builds the page.
    pub(in crate::control::dashboard) fn page(&self, content: Markup) -> Response {
        let (name, _) = self.site.brand();
        let home = match self.place {
            Place::Account(account, _) => format!("/accounts/{account}"),
            _ => "/".to_owned(),
        };
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                (head(self.title, &name))
                body {
                    a.skip href="#content" { "Skip to the content" }
                    header.bar {
                        details {
                            summary { (self.mark_text(&name)) span { "Menu" } }
                            div.rail { (self.rail("Pages, in the menu")) }
                        }
                    }
                    div.app {
                        aside.rail aria-label="Pages and account" { (mark(self.site, &home)) (self.rail("Pages")) }
                        main #content tabindex="-1" {
                            div.inner {
                                (self.banners())
                                div.head {
                                    div { h1 { (self.title) } p { (self.about) } }
                                    @if let Some(action) = &self.action { div.actions { (action) } }
                                }
                                (content)
                            }
                        }
                    }
                    div #said .sr role="status" aria-live="polite" {}
                }
            }
        };
        Html(page.into_string()).into_response()
    }

    fn mark_text(&self, name: &str) -> Markup {
        html! { strong { (name) } }
    }

    fn banners(&self) -> Markup {
        let reload = self.visitor.operator().is_some_and(|role| role != Role::Billing);
        let refused = self.site.control.last_reload_error().filter(|_| reload);
        html! {
            @if refused.is_some() {
                div.banner.bad role="alert" {
                    span { "The configuration file is wrong; the former one stays in force." }
                    a href="/operator/config" { "See what is wrong" }
                }
            }
            @if let Some(Notice(text)) = self.notice { div.banner.ok role="status" { span { (text) } } }
        }
    }
}

/// A page for somebody who is not signed in: one card in the middle.
pub(in crate::control::dashboard) fn enter_page(site: &Site, title: &str, content: Markup) -> Response {
    let (name, _) = site.brand();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head(title, &name))
            body {
                main.enter {
                    div {
                        (mark(site, "/"))
                        div.card { div.body { (content) } }
                    }
                }
                div #said .sr role="status" aria-live="polite" {}
            }
        }
    };
    Html(page.into_string()).into_response()
}

/// A page that says why there is no other.
pub(in crate::control::dashboard) fn error_page(title: &str, text: &str) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head(title, "Dashboard"))
            body {
                main.enter {
                    div {
                        div.card { div.body {
                            h1 { (title) }
                            p { (text) }
                            p { a href="/" { "To the first page" } }
                        } }
                    }
                }
            }
        }
    };
    Html(page.into_string())
}

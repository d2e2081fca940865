//! Parts that pages share: cards, tiles, badges, fields, tables' feet, questions.

use maud::{Markup, html};

use super::format;
use crate::control::operations::OperationError;

/// A card with a title.
pub(in crate::control::dashboard) fn card(title: &str, body: Markup) -> Markup {
    html! { section.card { header { h2 { (title) } } div.body { (body) } } }
}

/// A card around a table, without a margin.
pub(in crate::control::dashboard) fn table_card(
    title: &str,
    action: Option<Markup>,
    table: Markup,
) -> Markup {
    html! {
        section.card {
            header { h2 { (title) } @if let Some(action) = action { (action) } }
            div.scroll tabindex="0" role="region" aria-label=(title) { (table) }
        }
    }
}

/// A tile: label, figure, and what else there is to say.
pub(in crate::control::dashboard) fn tile(label: &str, figure: Markup, change: Markup) -> Markup {
    html! { div.tile { div.label { (label) } p.figure { (figure) } div.change { (change) } } }
}

/// How a number changed since the period before.
pub(in crate::control::dashboard) fn change(now: f64, before: f64) -> Markup {
    html! {
        @if before <= 0.0 { "none the day before" }
        @else if (now - before).abs() < before * 0.005 { "as the day before" }
        @else if now > before { "▲ " (format!("{:.0} %", (now - before) * 100.0 / before)) " on the day before" }
        @else { "▼ " (format!("{:.0} %", (before - now) * 100.0 / before)) " on the day before" }
    }
}

/// A state: a word, a colour and a shape.
pub(in crate::control::dashboard) fn badge(state: &str) -> Markup {
    let class = match state {
        "active" | "delivered" | "up" | "owner" | "verified" | "in force" | "returned" => "ok",
        "disabled" | "suspended" | "waiting" | "slow start" | "expired" | "ejected" | "in doubt"
        | "expiring" => "warn",
        "revoked" | "failed" | "down" | "closed" | "dropped by the file" => "bad",
        "file" | "store" | "operator" | "public" => "info",
        _ => "",
    };
    html! { span class={ "badge " (class) } { (state) } }
}

/// A field of a form.
pub(in crate::control::dashboard) struct Field<'a> {
    pub(in crate::control::dashboard) name: &'static str,
    pub(in crate::control::dashboard) label: &'a str,
    pub(in crate::control::dashboard) hint: &'a str,
    pub(in crate::control::dashboard) kind: &'static str,
    pub(in crate::control::dashboard) value: &'a str,
    pub(in crate::control::dashboard) is_needed: bool,
    pub(in crate::control::dashboard) autocomplete: &'static str,
}

impl Default for Field<'_> {
    fn default() -> Self {
        Self { name: "", label: "", hint: "", kind: "text", value: "", is_needed: false, autocomplete: "off" }
    }
}

/// The message about a field, if an error is about it. `names`: the operation's names of what the field is.
fn message<'a>(error: Option<&'a OperationError>, name: &str) -> Option<&'a str> {
    match error {
        Some(OperationError::Invalid { field, message }) if *field == name => Some(message),
        _ => None,
    }
}

impl Field<'_> {
    /// The field, with the error if it is about it.
    pub(in crate::control::dashboard) fn render(&self, error: Option<&OperationError>) -> Markup {
        let error = message(error, self.name);
        let (hint, wrong) = (format!("{}-hint", self.name), format!("{}-error", self.name));
        let mut described = Vec::new();
        if !self.hint.is_empty() {
            described.push(hint.as_str());
        }
        if error.is_some() {
            described.push(wrong.as_str());
        }
        html! {
            div.field {
                label for=(self.name) { (self.label) }
                input #(self.name) name=(self.name) type=(self.kind) value=[(self.kind != "password").then_some(self.value)]
                    required[self.is_needed] autocomplete=(self.autocomplete)
                    aria-invalid=[error.is_some().then_some("true")]
                    aria-describedby=[(!described.is_empty()).then(|| described.join(" "))];
                @if !self.hint.is_empty() { span.hint id=(hint) { (self.hint) } }
                @if let Some(error) = error { span.error id=(wrong) { (error) } }
            }
        }
    }
}

/// A choice of a form.
pub(in crate::control::dashboard) fn select(
    name: &str,
    label: &str,
    options: &[(&str, &str)],
    chosen: &str,
) -> Markup {
    html! {
        div.field {
            label for=(name) { (label) }
            select #(name) name=(name) {
                @for (value, text) in options { option value=(value) selected[*value == chosen] { (text) } }
            }
        }
    }
}

/// An error that is not about one of the named fields.
pub(in crate::control::dashboard) fn trouble(error: Option<&OperationError>, fields: &[&str]) -> Markup {
    let is_of_field = |error: &&OperationError| !matches!(error, OperationError::Invalid { field, .. } if fields.contains(field));
    html! {
        @if let Some(error) = error.filter(is_of_field) { div.banner.bad role="alert" { span { (error) } } }
    }
}

/// A text with a button that copies it.
pub(in crate::control::dashboard) fn copyable(id: &str, text: &str) -> Markup {
    html! {
        div.with-copy {
            pre id=(id) tabindex="0" { (text) }
            button.tight.hidden type="button" data-js="" data-copy=(id) { "Copy" }
        }
    }
}

/// A line with the secret of the page in it, which a script masks like the secret itself.
pub(in crate::control::dashboard) fn secret_line(id: &str, text: &str) -> Markup {
    html! {
        div.with-copy {
            pre id=(id) tabindex="0" data-line="" { (text) }
            button.tight.hidden type="button" data-js="" data-copy=(id) { "Copy" }
        }
    }
}

/// An id with a button that copies it.
pub(in crate::control::dashboard) fn id(element: &str, text: &str) -> Markup {
    html! {
        code id=(element) { (text) } " "
        button.link.hidden type="button" data-js="" data-copy=(element) aria-label={ "Copy " (text) } { "Copy" }
    }
}

/// A form of one button.
pub(in crate::control::dashboard) fn button(action: &str, text: &str, class: &str) -> Markup {
    button_with(action, &[], text, class)
}

/// A button that sends a request with these fields.
pub(in crate::control::dashboard) fn button_with(
    action: &str,
    fields: &[(&str, &str)],
    text: &str,
    class: &str,
) -> Markup {
    html! {
        form method="post" action=(action) {
            @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
            button class=(class) type="submit" { (text) }
        }
    }
}

/// What there is instead of an empty table.
pub(in crate::control::dashboard) fn empty(text: &str, action: Option<Markup>) -> Markup {
    html! { div.empty { p { (text) } @if let Some(action) = action { (action) } } }
}

/// The end of a table of which rows from `start` on are shown; `of`: the number of all, if it is known.
pub(in crate::control::dashboard) fn next_of(
    start: usize,
    shown: usize,
    of: Option<usize>,
    next: Option<String>,
) -> Markup {
    html! {
        @if shown > 0 || next.is_some() {
            div.foot-row {
                span {
                    "Showing " (format::count((start + shown.min(1)) as u64)) "–" (format::count((start + shown) as u64))
                    @if let Some(of) = of { " of " (format::count(of as u64)) }
                }
                @if let Some(next) = next { a href=(next) rel="next" { "Next page" } }
            }
        }
    }
}

/// The end of a table that has more pages.
pub(in crate::control::dashboard) fn next(shown: usize, next: Option<String>) -> Markup {
    html! {
        @if shown > 0 || next.is_some() {
            div.foot-row {
                span { "Showing " (shown) }
                @if let Some(next) = next { a href=(next) rel="next" { "Next page" } }
            }
        }
    }
}

/// A question before something is done that cannot be undone. The focus starts on Cancel.
pub(in crate::control::dashboard) struct Question<'a> {
    pub(in crate::control::dashboard) title: &'a str,
    /// What happens then.
    pub(in crate::control::dashboard) effect: &'a str,
    /// The address that does it.
    pub(in crate::control::dashboard) action: &'a str,
    /// The verb.
    pub(in crate::control::dashboard) verb: &'a str,
    /// Where Cancel leads to.
    pub(in crate::control::dashboard) back: &'a str,
    /// What else is filled in.
    pub(in crate::control::dashboard) fields: Markup,
}

impl Question<'_> {
    /// The question; with a script it is shown as a dialog over the page before.
    pub(in crate::control::dashboard) fn render(&self, error: Option<&OperationError>) -> Markup {
        html! {
            section.card {
                div.body {
                    div data-dialog-body="" {
                        h2 #dialog-title { (self.title) }
                        p { (self.effect) }
                        form.stack method="post" action=(self.action) {
                            (trouble(error, &["name"]))
                            (self.fields)
                            div.actions {
                                a.button href=(self.back) data-cancel="" autofocus="" { "Cancel" }
                                button.danger type="submit" { (self.verb) }
                            }
                        }
                    }
                }
            }
        }
    }
}

//! The fields of a key's terms, and how they are read.

use maud::{Markup, html};

use crate::control::dashboard::html::parts::{Field, select};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::Fields;
use crate::control::operations::{GroupView, LimitTerms, OperationError, PublicRoute, Result, SpendTerms};
use crate::policy::key::Scopes;
use crate::types::{Credits, GroupName, IdError};

/// How long a key works, as one chooses it.
pub(in crate::control::dashboard::account) const EXPIRIES: [(&str, &str); 6] = [
    ("", "Never"),
    ("7d", "7 days"),
    ("30d", "30 days"),
    ("90d", "90 days"),
    ("365d", "1 year"),
    ("date", "On a date"),
];

/// Which routes a key may call, as a form has it.
pub(in crate::control::dashboard::account) enum Choice {
    /// All of them.
    All,
    /// Those that only read.
    Reading,
    /// These patterns of names.
    Some(Vec<String>),
}

/// The names of the routes that only read: those with no method but GET and HEAD.
fn reading(routes: &[PublicRoute]) -> Vec<String> {
    let reads =
        |route: &&PublicRoute| route.methods.split(", ").all(|method| matches!(method, "GET" | "HEAD"));
    routes.iter().filter(|route| !route.public).filter(reads).map(|route| route.name.clone()).collect()
}

impl Choice {
    /// The choice that a key has.
    pub(in crate::control::dashboard::account) fn of(site: &Site, patterns: Option<&[String]>) -> Self {
        match patterns {
            None => Self::All,
            Some(patterns) if patterns == reading(&site.control.priced_routes(None)) => Self::Reading,
            Some(patterns) => Self::Some(patterns.to_vec()),
        }
    }
}

impl Fields {
    /// The choice that was typed.
    pub(in crate::control::dashboard::account) fn choice(&self) -> Choice {
        match self.get("scope") {
            "some" => Choice::Some(self.all("route").map(str::to_owned).collect()),
            "reading" => Choice::Reading,
            _ => Choice::All,
        }
    }
}

/// The boxes of routes.
pub(in crate::control::dashboard::account) fn scopes(site: &Site, chosen: &Choice) -> Markup {
    let routes = site.control.priced_routes(None);
    let reads = reading(&routes);
    let patterns = match chosen {
        Choice::Some(patterns) => patterns.as_slice(),
        Choice::All | Choice::Reading => &[],
    };
    html! {
        fieldset {
            legend { "What the key may call" }
            label.check { input type="radio" name="scope" value="all" checked[matches!(chosen, Choice::All)]; "All routes" }
            @if !reads.is_empty() {
                label.check { input type="radio" name="scope" value="reading" checked[matches!(chosen, Choice::Reading)]; "Read only: " (reads.join(", ")) }
            }
            label.check { input type="radio" name="scope" value="some" checked[matches!(chosen, Choice::Some(_))]; "Only these routes" }
            @for pattern in patterns.iter().filter(|name| routes.iter().all(|route| route.name != **name)) {
                label.check { input type="checkbox" name="route" value=(pattern) checked; code { (pattern) } }
            }
            div.scroll {
                table {
                    thead { tr { th { "Route" } th { "Methods" } th { "Path" } th { "Allowed" } } }
                    tbody {
                        @for route in routes.iter().filter(|route| !route.public) {
                            tr {
                                td { (route.name) }
                                td { (route.methods) }
                                td { code { (route.path) } }
                                td { input type="checkbox" name="route" value=(route.name) aria-label={ "Allow " (route.name) }
                                    checked[patterns.contains(&route.name)]; }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Reads the boxes of routes.
pub(in crate::control::dashboard::account) fn chosen_scopes(site: &Site, fields: &Fields) -> Result<Scopes> {
    let routes = match fields.choice() {
        Choice::All => return Ok(Scopes::default()),
        Choice::Reading => reading(&site.control.priced_routes(None)),
        Choice::Some(routes) => routes,
    };
    if routes.is_empty() {
        let message = "choose at least one route".to_owned();
        return Err(OperationError::Invalid { field: "scopes", message });
    }
    Ok(Scopes::of(routes))
}

/// Reads networks, separated by commas or spaces.
pub(in crate::control::dashboard::account) fn networks(fields: &Fields) -> Result<Vec<ipnet::IpNet>> {
    let parts = fields.get("allow_from").split([',', ' ', '\r', '\n']).filter(|part| !part.is_empty());
    let network = |part: &str| {
        let address = part.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
        let message = format!("{part} is no address or network such as 203.0.113.0/24");
        part.parse().or(address).map_err(|_| OperationError::Invalid { field: "allow_from", message })
    };
    parts.map(network).collect()
}

/// Reads an amount of credits; `None` if it is empty.
pub(in crate::control::dashboard::account) fn amount(
    fields: &Fields,
    field: &'static str,
) -> Result<Option<Credits>> {
    let invalid =
        |_| OperationError::Invalid { field, message: "an amount looks like 1000 or 0.25".to_owned() };
    fields.some(field).map(|text| text.replace(',', "").parse().map_err(invalid)).transpose()
}

/// Reads a spending limit; `None` if it is empty.
pub(super) fn spend_limit(fields: &Fields) -> Result<Option<SpendTerms>> {
    let field = "spend_limit";
    let invalid = |message| OperationError::Invalid { field, message };
    fields.some(field).map(|text| text.parse().map_err(invalid)).transpose()
}

/// Reads the name of a group; `None` if it is empty.
pub(super) fn group_name(fields: &Fields) -> Result<Option<GroupName>> {
    let invalid = |error: IdError| OperationError::Invalid { field: "group", message: error.to_string() };
    fields.some("group").map(|text| text.parse().map_err(invalid)).transpose()
}

/// The groups that a key can be put in; nothing if there is none.
pub(super) fn group_field(groups: &[GroupView], chosen: &str) -> Markup {
    let names = groups.iter().map(|group| (group.name.as_str(), group.name.as_str()));
    let options: Vec<_> = std::iter::once(("", "None")).chain(names).collect();
    html! { @if !groups.is_empty() { (select("group", "Group", &options, chosen)) } }
}

/// Reads when a key expires.
pub(in crate::control::dashboard::account) fn expiry(fields: &Fields) -> Option<String> {
    match fields.get("expires") {
        "" => None,
        "date" => Some(format!("{}T23:59:59Z", fields.get("date"))),
        preset => Some(preset.to_owned()),
    }
}

/// The windows of a key's own limit, as one chooses them.
const WINDOWS: [(&str, &str); 4] =
    [("1s", "a second"), ("60s", "a minute"), ("3600s", "an hour"), ("86400s", "a day")];

/// The fields of a key's own limit. `requests` and `window`: what they show.
pub(in crate::control::dashboard::account) fn own_limit_fields(
    requests: &str,
    window: &str,
    error: Option<&OperationError>,
) -> Markup {
    let field = Field {
        name: "limits",
        label: "At most this many requests",
        hint: "Besides the limits of the plan. Left empty: those alone.",
        kind: "number",
        value: requests,
        ..Field::default()
    };
    let window = if window.is_empty() { "60s" } else { window };
    html! { div.row { (field.render(error)) (select("window", "In", &WINDOWS, window)) } }
}

/// Reads a key's own limit.
pub(in crate::control::dashboard::account) fn own_limit(fields: &Fields) -> Result<Option<Vec<LimitTerms>>> {
    let Some(text) = fields.some("limits") else { return Ok(None) };
    let invalid =
        |_| OperationError::Invalid { field: "limits", message: "this is a number of requests".to_owned() };
    let requests = text.replace(',', "").parse().map_err(invalid)?;
    Ok(Some(vec![LimitTerms::adding("own", requests, fields.some("window").unwrap_or("60s"))]))
}

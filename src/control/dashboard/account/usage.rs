//! The usage of an account: requests and credits over time, by key, by route and by outcome.

use std::collections::BTreeMap;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use jiff::civil::Date;
use maud::{Markup, html};

use crate::control::dashboard::html::chart;
use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{card, empty, select, table_card, tile};
use crate::control::dashboard::operator::csv_response;
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, InAccount};
use crate::control::operations::{
    DaySums, Grouping, OperationError, Result, Step, UsageQuery, UsageReport, UsageView,
};
use crate::types::{Credits, KeyNum, WallTime};

const RANGES: [(&str, &str); 5] = [
    ("24h", "24 hours"),
    ("7d", "7 days"),
    ("30d", "30 days"),
    ("90d", "90 days"),
    ("custom", "From … to …"),
];
const GROUPS: [(&str, &str); 3] = [("route", "Route"), ("key", "Key"), ("status", "Outcome")];
/// Keys whose names are looked up.
const NAMES: usize = 1_000;

/// Time zones, as minutes east of UTC: whole hours, and the others in which many people live.
const ZONES: [i64; 33] = [
    -660, -600, -540, -480, -420, -360, -300, -240, -210, -180, -120, -60, 0, 60, 120, 180, 210, 240, 270,
    300, 330, 345, 360, 390, 420, 480, 540, 570, 600, 660, 720, 765, 780,
];

/// What the page asks for.
struct Asked {
    range: String,
    group: String,
    query: UsageQuery,
}

impl Asked {
    fn read(fields: &Fields, now: WallTime) -> Self {
        let zone = fields.get("zone").parse().ok().filter(|zone| ZONES.contains(zone)).unwrap_or(0);
        let group = fields.some("group").unwrap_or("route").to_owned();
        let range = fields.some("range").unwrap_or("7d");
        let days = |number: i64| UsageQuery::last(number, Step::Day, zone, now);
        let at = |day: &str, time: &str| format!("{day}T{time}{}", chart::offset(zone));
        let (range, query) = match range {
            "24h" => (range, UsageQuery::last(24, Step::Hour, zone, now)),
            "30d" => (range, days(30)),
            "90d" => (range, days(90)),
            "custom" => {
                let from = fields.some("from").map(|day| at(day, "00:00:00"));
                let after = |day: &str| day.parse::<Date>().ok()?.tomorrow().ok().map(|day| day.to_string());
                let to = fields
                    .some("to")
                    .map(|day| at(&after(day).unwrap_or_else(|| day.to_owned()), "00:00:00"));
                (range, UsageQuery { from: from.or(days(30).from), to, ..days(30) })
            }
            _ => ("7d", days(7)),
        };
        Self { range: range.to_owned(), group, query }
    }

    fn query(&self, of: &InAccount, step: Step, by: Option<Grouping>) -> UsageQuery {
        UsageQuery { account: Some(of.account.clone()), step, by, ..self.query.clone() }
    }

    fn grouping(&self) -> Option<Grouping> {
        match self.group.as_str() {
            "key" => Some(Grouping::Key),
            "status" => None,
            _ => Some(Grouping::Route),
        }
    }
}

/// The names of keys by their ids.
async fn names(site: &Site, of: &InAccount) -> Result<BTreeMap<String, String>> {
    let page = site.control.keys(&of.caller, Some(of.account.clone()), None, KeyNum(0), NAMES).await?;
    Ok(page.data.into_iter().map(|key| (key.id.to_string(), key.label)).collect())
}

fn groups(asked: &Asked, report: &UsageReport, names: &BTreeMap<String, String>) -> Markup {
    if asked.group == "status" {
        let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
        for row in &report.data {
            row.outcomes.iter().for_each(|(name, number)| *outcomes.entry(name).or_default() += number);
        }
        return html! {
            table {
                thead { tr { th { "Outcome" } th.num { "Requests" } } }
                tbody { @for (name, number) in &outcomes { tr { td { (name) } td.num { (format::count(*number)) } } } }
            }
        };
    }
    let named = |row: &UsageView| {
        let id = row.of.clone().flatten().unwrap_or_else(|| "(none)".to_owned());
        names.get(&id).cloned().unwrap_or(id)
    };
    html! {
        table {
            thead { tr {
                th { (if asked.group == "key" { "Key" } else { "Route" }) } th.num { "Requests" } th.num { "Answered without an error" }
                th.num { "Credits" } th.num { "95 % faster than" }
            } }
            tbody {
                @for row in &report.data {
                    tr {
                        td { (named(row)) }
                        td.num { (format::count(row.requests)) }
                        td.num { (format::percent(DaySums::of(row).success())) }
                        td.num { (format::credits(row.credits)) }
                        td.num { @match row.durations.p95 { Some(millis) => { (format!("{millis:.0} ms")) }, None => "–" } }
                    }
                }
            }
        }
    }
}

fn zone_name(zone: i64) -> String {
    if zone == 0 { "UTC".to_owned() } else { format!("UTC{}", chart::offset(zone)) }
}

fn filters(asked: &Asked, fields: &Fields) -> Markup {
    html! {
        form.filters method="get" data-auto="" {
            (select("range", "Time", &RANGES, &asked.range))
            (select("group", "Grouped by", &GROUPS, &asked.group))
            @if asked.range == "custom" {
                div.field { label for="from" { "From" } input #from name="from" type="date" value=(fields.get("from")); }
                div.field { label for="to" { "To" } input #to name="to" type="date" value=(fields.get("to")); }
            }
            div.field {
                label for="zone" { "Time zone" }
                select #zone name="zone" data-zone="" {
                    @for zone in ZONES { option value=(zone) selected[zone == asked.query.zone] { (zone_name(zone)) } }
                }
            }
            button type="submit" { "Show" }
        }
    }
}

/// The usage of an account.
pub(in crate::control::dashboard) async fn usage(
    State(site): State<Site>,
    of: InAccount,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let fields = Fields::of(query.as_deref());
    let asked = Asked::read(&fields, site.now());
    let frame = of.frame(&site, "usage", "Usage", "Requests and credits, as the ledger counts them.");
    let all = vec![asked.query(&of, asked.query.step, None), asked.query(&of, Step::All, asked.grouping())];
    let reports = match site.control.usage_reports(&of.caller, all).await {
        Ok(reports) => reports,
        Err(error @ OperationError::Invalid { .. }) => {
            let mut response = frame
                .page(html! { (filters(&asked, &fields)) div.banner.bad role="alert" { span { (error) } } });
            *response.status_mut() = Failure::status(&error);
            return Ok(response);
        }
        Err(error) => return Err(error.into()),
    };
    let [times, grouped] = &reports[..] else {
        return Err(OperationError::Missing("no report".to_owned()).into());
    };
    let names = if asked.group == "key" { names(&site, &of).await? } else { BTreeMap::new() };
    let total = DaySums::total(times);
    let bars = chart::bars(times, asked.query.step, asked.query.zone);
    let csv = html! { a href={ (of.at("usage.csv")) "?" (query.as_deref().unwrap_or_default()) } { "Download as CSV" } };
    Ok(frame.page(html! {
        (filters(&asked, &fields))
        div.tiles {
            (tile("Requests", html! { (format::count(total.requests())) }, html! { (format::percent(total.success())) " answered without an error" }))
            (tile("Limited or refused", html! { (format::count(total.limited + total.denied)) }, html! { "these cost nothing" }))
            (tile("Errors", html! { (format::count(total.failed)) }, html! { "status 400 and above, or no response" }))
            (tile("Credits", html! { (format::credits(Credits::from_millionths(total.millionths))) }, html! { "as in the ledger" }))
        }
        (card("Requests over time", html! {
            @if total.requests() == 0 { p.quiet { "No requests in this time." } } @else { (chart::outcomes("times", "Requests over time", &bars)) }
        }))
        (table_card(match asked.group.as_str() { "key" => "By key", "status" => "By outcome", _ => "By route" }, Some(csv), html! {
            @if grouped.data.is_empty() { (empty("No requests in this time.", None)) } @else { (groups(&asked, grouped, &names)) }
        }))
    }))
}

/// What the usage page shows, as a file.
pub(in crate::control::dashboard) async fn usage_csv(
    State(site): State<Site>,
    of: InAccount,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let asked = Asked::read(&Fields::of(query.as_deref()), site.now());
    let report = site.control.usage(&of.caller, asked.query(&of, asked.query.step, asked.grouping())).await?;
    let names = if asked.group == "key" { names(&site, &of).await? } else { BTreeMap::new() };
    let head = ["time", "of", "requests", "answered", "limited", "refused", "errors", "credits"];
    let lines = report.data.iter().map(|row| {
        let (of, counts) = (row.of.clone().flatten().unwrap_or_default(), DaySums::of(row));
        vec![
            row.at.0.to_string(),
            names.get(&of).cloned().unwrap_or(of),
            row.requests.to_string(),
            counts.ok.to_string(),
            counts.limited.to_string(),
            counts.denied.to_string(),
            counts.failed.to_string(),
            row.credits.to_string(),
        ]
    });
    csv_response("usage.csv", &head, lines)
}

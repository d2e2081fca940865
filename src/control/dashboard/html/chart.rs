//! Charts as SVG, with the exact figures on hover and focus, and as a table.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::format;
use crate::control::operations::{DaySums, Step, UsageReport, UsageView};
use crate::types::{Credits, WallTime};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 180.0;
/// Room for the labels at the left and below.
const LEFT: f64 = 44.0;
const BELOW: f64 = 20.0;
/// Most bars of one chart.
const MAX_BARS: usize = 400;
/// Steps of the vertical axis.
const STEPS: u32 = 4;

/// The smallest round number that is not below another: 1, 2 or 5 times a power of ten.
fn round_up(number: f64) -> f64 {
    if number <= f64::from(STEPS) {
        return f64::from(STEPS);
    }
    let power = 10_f64.powf(number.log10().floor());
    let factors = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    factors.into_iter().map(|factor| factor * power).find(|round| *round >= number).unwrap_or(10.0 * power)
}

fn short(number: f64) -> String {
    match number {
        n if n >= 1e9 => format!("{} G", trimmed(n / 1e9)),
        n if n >= 1e6 => format!("{} M", trimmed(n / 1e6)),
        n if n >= 1e3 => format!("{} k", trimmed(n / 1e3)),
        n => trimmed(n),
    }
}

fn trimmed(number: f64) -> String {
    format!("{number:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[expect(clippy::cast_precision_loss, reason = "places on a chart are not exact")]
fn float(number: u64) -> f64 {
    number as f64
}

/// Grid lines with labels, and the zero line.
fn axis(top: f64) -> Markup {
    html! {
        @for step in 0..=STEPS {
            @let share = f64::from(step) / f64::from(STEPS);
            @let y = HEIGHT - share * HEIGHT;
            line x1=(LEFT) x2=(WIDTH) y1=(y) y2=(y) class=(if step == 0 { "zero" } else { "grid" }) {}
            text x=(LEFT - 8.0) y=(y + 4.0) text-anchor="end" { (short(top * share)) }
        }
    }
}

/// Three to five labels below.
fn labels(names: &[String]) -> Markup {
    let width = (WIDTH - LEFT) / float(names.len().max(1) as u64);
    let every = names.len().div_ceil(5).max(1);
    html! {
        @for (at, name) in names.iter().enumerate().filter(|(at, _)| at % every == every / 2) {
            text x=(LEFT + width * (float(at as u64) + 0.5)) y=(HEIGHT + BELOW - 4.0) text-anchor="middle" { (name) }
        }
    }
}

/// One bar of a stacked chart.
pub(in crate::control::dashboard) struct Bar {
    /// The interval, such as a day.
    pub(in crate::control::dashboard) name: String,
    /// Its numbers.
    pub(in crate::control::dashboard) sums: DaySums,
}

/// The offset of a time zone, such as `+02:00`. `zone`: minutes east of UTC.
pub(in crate::control::dashboard) fn offset(zone: i64) -> String {
    let sign = if zone < 0 { '-' } else { '+' };
    format!("{sign}{:02}:{:02}", zone.abs() / 60, zone.abs() % 60)
}

/// A bar for each interval of a report, also for those without a request. `zone`: that of their names, as minutes east of
/// UTC.
pub(in crate::control::dashboard) fn bars(report: &UsageReport, step: Step, zone: i64) -> Vec<Bar> {
    let length = match step {
        Step::Hour | Step::Minute => 3_600_000,
        Step::Day | Step::All => 86_400_000,
    };
    let local = |at: i64| at + zone * 60_000;
    let name = |at: i64| match length {
        3_600_000 => WallTime(local(at)).to_string().get(11..16).unwrap_or_default().to_owned(),
        _ => format::day(local(at + length / 2).div_euclid(length)), // a day may begin half an hour late
    };
    let known: BTreeMap<i64, &UsageView> = report.data.iter().map(|row| (row.at.0.0, row)).collect();
    let first = report.data.first().map_or(report.from.0.0, |row| row.at.0.0);
    let start = first - (first - report.from.0.0 + length - 1).div_euclid(length) * length;
    let times =
        (0..).map(|number| start + number * length).take_while(|at| *at < report.to.0.0).take(MAX_BARS);
    let sums = |at: i64| known.get(&at).map_or(DaySums::default(), |row| DaySums::of(row));
    times.map(|at| Bar { name: name(at), sums: sums(at) }).collect()
}

fn parts(sums: &DaySums) -> [(&'static str, u64); 4] {
    [("ok", sums.ok), ("limited", sums.limited), ("denied", sums.denied), ("failed", sums.failed)]
}

/// Stacked bars of outcomes, with a legend and a table.
pub(in crate::control::dashboard) fn outcomes(id: &str, title: &str, bars: &[Bar]) -> Markup {
    let most = bars.iter().map(|bar| bar.sums.requests()).max().unwrap_or(0);
    let top = round_up(float(most));
    let width = (WIDTH - LEFT) / float(bars.len().max(1) as u64);
    let names: Vec<String> = bars.iter().map(|bar| bar.name.clone()).collect();
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT + BELOW) } role="group" aria-label=(title) {
            (axis(top))
            @for (at, bar) in bars.iter().enumerate() {
                @let x = LEFT + width * float(at as u64);
                @let words = words(&bar.sums);
                g tabindex="0" role="img" aria-label={ (bar.name) ": " (words) } {
                    title { (bar.name) ": " (words) }
                    rect.hit x=(tenth(x)) y="0" width=(tenth(width)) height=(HEIGHT) {}
                    @let mut below = 0.0;
                    @for (class, number) in parts(&bar.sums) {
                        @let height = float(number) / top * HEIGHT;
                        @if number > 0 {
                            rect class={ "bar-" (class) } x=(tenth(x + width * 0.15)) y=(tenth(HEIGHT - below - height))
                                width=(tenth(width * 0.7)) height=(tenth(height.max(0.5))) {}
                        }
                        @let () = { below += height; };
                    }
                }
            }
            (labels(&names))
        }
        ul.legend {
            @for (class, name) in [("ok", "Answered"), ("limited", "Limited"), ("denied", "Refused"), ("failed", "Errors")] {
                li { svg viewBox="0 0 10 10" aria-hidden="true" { rect class={ "bar-" (class) } width="10" height="10" rx="2" {} } (name) }
            }
        }
        details {
            summary { "Show data" }
            div.scroll tabindex="0" role="region" aria-label={ "Data of " (title) } {
                table #(id) {
                    thead { tr { th { "Time" } th.num { "Answered" } th.num { "Limited" } th.num { "Refused" } th.num { "Errors" } th.num { "Credits" } } }
                    tbody {
                        @for bar in bars.iter().filter(|bar| bar.sums.requests() > 0 || bar.sums.millionths != 0) {
                            tr {
                                td { (bar.name) }
                                @for (_, number) in parts(&bar.sums) { td.num { (format::count(number)) } }
                                td.num { (format::credits(bar.sums.credits())) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn words(sums: &DaySums) -> String {
    let named = parts(sums).into_iter().filter(|(_, number)| *number > 0);
    let named: Vec<String> = named
        .map(|(name, number)| {
            let name = match name {
                "ok" => "answered",
                "denied" => "refused",
                "failed" => "errors",
                other => other,
            };
            format!("{} {name}", format::count(number))
        })
        .collect();
    let requests = if named.is_empty() { "no requests".to_owned() } else { named.join(", ") };
    format!("{requests}; {} credits", format::credits(sums.credits()))
}

fn tenth(number: f64) -> String {
    trimmed((number * 10.0).round() / 10.0)
}

/// An area of credits by day, with a table.
pub(in crate::control::dashboard) fn spent(title: &str, days: &[(i64, Credits)]) -> Markup {
    let amounts: Vec<f64> =
        days.iter().map(|(_, credits)| float(credits.millionths().max(0).unsigned_abs()) / 1e6).collect();
    let top = round_up(amounts.iter().copied().fold(0.0, f64::max));
    let width = (WIDTH - LEFT) / float(days.len().max(1) as u64);
    let x = |at: usize| tenth(LEFT + width * (float(at as u64) + 0.5));
    let points: Vec<String> = amounts
        .iter()
        .enumerate()
        .map(|(at, amount)| format!("{},{}", x(at), tenth(HEIGHT - amount / top * HEIGHT)))
        .collect();
    let area = format!("{},{HEIGHT} {} {},{HEIGHT}", x(0), points.join(" "), x(days.len().saturating_sub(1)));
    let names: Vec<String> = days.iter().map(|(day, _)| format::day(*day)).collect();
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT + BELOW) } role="group" aria-label=(title) {
            (axis(top))
            polygon.area points=(area) {}
            polyline.line points=(points.join(" ")) {}
            @for (at, (day, credits)) in days.iter().enumerate() {
                @let words = format!("{}: {} credits", format::day(*day), format::credits(*credits));
                g tabindex="0" role="img" aria-label=(words) {
                    title { (words) }
                    rect.hit x=(tenth(LEFT + width * float(at as u64))) y="0" width=(tenth(width)) height=(HEIGHT) fill-opacity="0.4" {}
                }
            }
            (labels(&names))
        }
    }
}

/// Thirty small bars in a table, of which the part of refusals and errors is told apart.
pub(in crate::control::dashboard) fn spark(name: &str, days: &[DaySums]) -> Markup {
    let most = float(days.iter().map(DaySums::requests).max().unwrap_or(0).max(1));
    let all: u64 = days.iter().map(DaySums::requests).sum();
    let failed: u64 = days.iter().map(|day| day.requests() - day.ok).sum();
    let requests = format::counted(all, "request", "requests");
    let words = format!("{name}: {requests} in 30 days, {} refused or failed", format::count(failed));
    let height = |number: u64| if number == 0 { 0.0 } else { (float(number) / most * 22.0).max(1.0) };
    // One path for all bars of a kind, since a page has many of these.
    let path = |number: fn(&DaySums) -> u64| {
        let bars = days.iter().enumerate().filter(|(_, day)| number(day) > 0);
        bars.map(|(at, day)| format!("M{} 23v-{}h3V23", 1 + at * 4, tenth(height(number(day)))))
            .collect::<String>()
    };
    html! {
        svg.spark viewBox="0 0 122 24" role="img" aria-label=(words) {
            title { (words) }
            path.base d="M0 23.5H122" {}
            path.bar-ok d=(path(DaySums::requests)) {}
            path.bar-failed d=(path(|day| day.requests() - day.ok)) {}
        }
    }
}

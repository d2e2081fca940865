//! Implements `check`: reports all mistakes of a configuration.

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::Value;

use super::ask::Asker;
use super::failed::{Failed, Result};
use super::output::{self, Output};
use crate::config;
use crate::control::command::Command;
use crate::control::operations::RehearsalInput;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The format in which problems are printed.
    #[arg(long, value_enum, default_value_t = CheckFormat::Text)]
    format: CheckFormat,
    /// Also say what the file would have decided about the requests of this time, at most 1h. Needs a running gateway.
    #[arg(long, value_name = "DURATION")]
    against: Option<String>,
    /// The configuration of the running gateway, if it is not the file that is checked.
    #[arg(long, value_name = "FILE", requires = "against")]
    gateway: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    /// Text with source excerpts, like the messages of a compiler.
    Text,
    /// A JSON list of file, line, column, message and help.
    Json,
}

pub(super) fn run(asker: &Asker, arguments: &Arguments) -> Result {
    if let (Some(against), Output::Json) = (&arguments.against, asker.output) {
        return output::json(&rehearse(asker, arguments, against)?);
    }
    check(asker, arguments)?;
    match &arguments.against {
        Some(against) => print(&rehearse(asker, arguments, against)?),
        None => Ok(()),
    }
}

/// Asks the running gateway what the file would have decided.
fn rehearse(asker: &Asker, arguments: &Arguments, against: &str) -> Result<Value> {
    let file = asker.config.as_path();
    let config = std::path::absolute(file)?;
    let gateway = arguments.gateway.clone().unwrap_or_else(|| file.to_owned());
    let asker = Asker { config: gateway, output: asker.output };
    asker.online(&Command::Rehearse(RehearsalInput { config, against: against.to_owned() }))
}

fn print(told: &Value) -> Result {
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if count(&told["requests"]) == 0 {
        return output::text("no request in this time\n");
    }
    output::text(&format!(
        "{} requests since {}{}: {} with another decision\n",
        told["requests"],
        text(&told["from"]),
        if told["incomplete"] == true { " (there were more, but only these are kept)" } else { "" },
        told["changed"],
    ))?;
    for (rule, change) in told["rules"].as_object().into_iter().flatten() {
        let kinds = [
            ("refused", "now admitted, would be refused"),
            ("admitted", "now refused, would be admitted"),
            ("other_reason", "refused for another reason"),
        ];
        for (kind, what) in kinds.iter().filter(|(kind, _)| count(&change[kind]) > 0) {
            output::text(&format!("{:>8} {rule}: {what}\n", count(&change[kind])))?;
        }
    }
    for (route, sums) in told["charges"].as_object().into_iter().flatten() {
        output::text(&format!("credits of {route}: {} now, {} then\n", sums[0], sums[1]))?;
    }
    Ok(())
}

fn check(asker: &Asker, arguments: &Arguments) -> Result {
    let path = &asker.config;
    let result = config::load(path);
    let format = if asker.output == Output::Json { CheckFormat::Json } else { arguments.format };
    if format == CheckFormat::Json {
        let report = result.as_ref().map_or_else(|report| report, |loaded| &loaded.report);
        output::json(&serde_json::to_value(report.to_json())?)?;
    }
    match (result, format) {
        (Ok(_), CheckFormat::Json) => Ok(()),
        (Err(_), CheckFormat::Json) => Err(Failed(String::new())),
        (Err(report), CheckFormat::Text) => Err(Failed(report.to_string())),
        (Ok(loaded), CheckFormat::Text) => {
            if loaded.report.problems().next().is_some() {
                eprintln!("{}", loaded.report);
            }
            output::text(&format!(
                "{}: fine ({} routes, {} plans, {} accounts, {} keys)\n",
                path.display(),
                loaded.snapshot.routes.len(),
                loaded.snapshot.plans.len(),
                loaded.accounts.len(),
                loaded.keys.len()
            ))?;
            output::text(&loaded.most_costs())
        }
    }
}

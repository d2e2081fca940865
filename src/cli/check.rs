//! Implements `check`: reports all mistakes of a configuration.

use clap::ValueEnum;

use super::ask::Asker;
use super::failed::{Failed, Result};
use super::output::{self, Output};
use crate::config;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The format in which problems are printed.
    #[arg(long, value_enum, default_value_t = CheckFormat::Text)]
    format: CheckFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    /// Text with source excerpts, like the messages of a compiler.
    Text,
    /// A JSON list of file, line, column, message and help.
    Json,
}

pub(super) fn run(asker: &Asker, arguments: &Arguments) -> Result {
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
            ))
        }
    }
}

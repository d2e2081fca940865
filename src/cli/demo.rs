use super::Result;
#[derive(Debug, clap::Args)] pub(super) struct Arguments {}
pub(super) fn run(_: &Arguments) -> Result { Ok(()) }

//! Money and limits against models: random interleavings, several threads.

mod ledger_model;
mod limits_oracle;

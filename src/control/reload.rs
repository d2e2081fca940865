//! Reloads the configuration: by an operation, by signal, or because the files changed. Only one reload runs at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::operations::{Caller, Noted, OperationError, Permission, Reloaded, Result};
use super::publish::Published;
use super::{Control, InForce};
use crate::config::{self, LoadedConfig, Report, Watched};
use crate::types::KeyHash;

/// A state of the configuration files that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    hash: KeyHash,
    /// True if the refusal was reported. It is not reported at first, since the file may be half written.
    pub is_reported: bool,
}

impl Control {
    /// The files and patterns of the current configuration, which are watched for changes.
    pub fn watched(&self) -> Watched {
        self.in_force.load().watched.clone()
    }

    /// Loads and publishes the configuration files. An invalid configuration changes nothing; unchanged files are not
    /// parsed again.
    ///
    /// # Errors
    /// The problems of the configuration, or the reason why it does not fit the ledger.
    pub async fn reload(&self, caller: &Caller) -> Result<Reloaded> {
        caller.may(Permission::Manage)?;
        let _alone = self.reloading.lock().await;
        let before = self.in_force.load_full();
        let result = match self.load(&before).await? {
            None => Ok(before.warnings.clone()),
            Some(Ok(loaded)) => self.publish_as(caller, loaded, &before).await,
            Some(Err(report)) => Err(OperationError::Config(Box::new(report))),
        };
        let reloaded = self.finish(result)?;
        if let Some(answer) = caller.answer(&reloaded) {
            self.bookkeeper.note(vec![answer]).await?;
        }
        Ok(reloaded)
    }

    /// Reloads if the files differ from the published ones. Problems within the files are reported when two polls in a
    /// row find the same files. `refused`: the result of the previous poll.
    pub async fn refresh(&self, refused: Option<Refused>) -> Option<Refused> {
        let _alone = self.reloading.lock().await;
        let before = self.in_force.load_full();
        match self.load(&before).await {
            Err(_) => refused, // the process is stopping
            Ok(None) => None,
            Ok(Some(Ok(loaded))) => {
                let this = Refused { hash: loaded.hash, is_reported: true };
                if refused == Some(this) {
                    return refused; // valid, but refused by the ledger before
                }
                let result = self.publish_as(&Caller::file(), loaded, &before).await;
                self.finish(result).err().map(|_| this)
            }
            Ok(Some(Err(report))) => {
                let hash = report.hash();
                let same = refused.filter(|refused| refused.hash == hash);
                if same.is_some_and(|same| !same.is_reported) {
                    let _ = self.finish(Err(OperationError::Config(Box::new(report)))); // `finish` reports the problems
                }
                Some(Refused { hash, is_reported: same.is_some() })
            }
        }
    }

    /// Publishes a configuration and writes an audit entry about it.
    async fn publish_as(
        &self,
        caller: &Caller,
        loaded: LoadedConfig,
        before: &InForce,
    ) -> Result<Vec<String>> {
        let _alone = self.changes.lock().await;
        let Published { mut warnings, own } = self.publish(loaded, before).await?;
        warnings.extend(self.apply_terms(&own).await);
        self.refill_now().await;
        let hash = |in_force: &InForce| Some(json!({ "hash": in_force.hash.to_hex() }));
        let (object, after) = ("configuration".to_owned(), hash(&self.in_force.load()));
        let noted = Noted { object, before: hash(before), after, output: () };
        let note = caller.audit("configuration.reload", &noted);
        if let Err(error) = self.bookkeeper.note(vec![note]).await {
            tracing::error!(%error, "the audit entry of a reload could not be written");
        }
        Ok(warnings)
    }

    /// Loads the files on a blocking thread; `None` if their content is already published.
    async fn load(&self, before: &Arc<InForce>) -> Result<Option<Result<LoadedConfig, Report>>> {
        let (path, before) = (self.path.clone(), Arc::clone(before));
        let load = move || {
            let same = config::hash_of(&path, &before.watched) == Some(before.hash);
            (!same).then(|| config::load(&path)).filter(|result| {
                result.as_ref().map_or(true, |loaded| loaded.hash != before.hash) // changed back in the meantime
            })
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        loaded.map_err(|error| {
            OperationError::Unavailable(format!("reading the configuration failed: {error}"))
        })
    }

    fn finish(&self, result: Result<Vec<String>>) -> Result<Reloaded> {
        match result {
            Ok(warnings) => {
                self.stats.reloads.fetch_add(1, Ordering::Relaxed);
                *self.last_reload_error.lock() = None;
                tracing::info!(warnings = warnings.len(), "configuration reloaded");
                for warning in &warnings {
                    tracing::warn!("{warning}");
                }
                Ok(Reloaded { reloaded: true, warnings })
            }
            Err(failure) => {
                self.stats.reloads_refused.fetch_add(1, Ordering::Relaxed);
                *self.last_reload_error.lock() = Some(failure.to_string());
                tracing::error!(error = %failure, "configuration refused; the previous one stays active");
                Err(failure)
            }
        }
    }
}

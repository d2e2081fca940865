//! Reloads the configuration: by command, by signal, or because the files changed. The lock is held from reading the
//! files until they are published, so that reloads do not overlap.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tokio::sync::MutexGuard;

use super::{Control, Failure, InForce, refused};
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
    pub async fn watched(&self) -> Watched {
        self.state.lock().await.watched.clone()
    }

    /// Loads and publishes the configuration files. An invalid configuration changes nothing; unchanged files are not
    /// parsed again.
    ///
    /// # Errors
    /// The problems of the configuration, or the reason why it does not fit the ledger.
    pub async fn reload(&self) -> Result<Value, Failure> {
        let mut state = self.state.lock().await;
        let result = match self.load(&state).await? {
            None => Ok(state.warnings.clone()),
            Some(Ok(loaded)) => self.publish(loaded, &mut state).await,
            Some(Err(report)) => Err(Failure::Config(Box::new(report))),
        };
        self.finish(state, result)
    }

    /// Reloads if the files differ from the published ones. Problems within the files are reported when two polls in a
    /// row find the same files. `before`: the result of the previous poll.
    pub async fn refresh(&self, before: Option<Refused>) -> Option<Refused> {
        let mut state = self.state.lock().await;
        match self.load(&state).await {
            Err(_) => before, // the process is stopping
            Ok(None) => None,
            Ok(Some(Ok(loaded))) => {
                let refused = Refused { hash: loaded.hash, is_reported: true };
                if before == Some(refused) {
                    return before; // valid, but refused by the ledger before
                }
                let result = self.publish(loaded, &mut state).await;
                self.finish(state, result).err().map(|_| refused)
            }
            Ok(Some(Err(report))) => {
                let hash = report.hash();
                let same = before.filter(|before| before.hash == hash);
                if same.is_some_and(|same| !same.is_reported) {
                    let _ = self.finish(state, Err(Failure::Config(Box::new(report)))); // `finish` reports the problems
                }
                Some(Refused { hash, is_reported: same.is_some() })
            }
        }
    }

    /// Loads the files on a blocking thread; `None` if their content is already published.
    async fn load(&self, state: &InForce) -> Result<Option<Result<LoadedConfig, Report>>, Failure> {
        let (path, watched, in_force) = (self.path.clone(), state.watched.clone(), state.hash);
        let load = move || {
            let same = config::hash_of(&path, &watched) == Some(in_force);
            (!same).then(|| config::load(&path)).filter(|result| {
                result.as_ref().map_or(true, |loaded| loaded.hash != in_force) // the files changed back in the meantime
            })
        };
        match tokio::task::spawn_blocking(load).await {
            Ok(result) => Ok(result),
            Err(error) => refused(format!("reading the configuration failed: {error}")),
        }
    }

    fn finish(
        &self,
        mut state: MutexGuard<'_, InForce>,
        result: Result<Vec<String>, Failure>,
    ) -> Result<Value, Failure> {
        match result {
            Ok(warnings) => {
                self.stats.reloads.fetch_add(1, Ordering::Relaxed);
                state.last_error = None;
                tracing::info!(warnings = warnings.len(), "configuration reloaded");
                for warning in &warnings {
                    tracing::warn!("{warning}");
                }
                state.warnings.clone_from(&warnings);
                Ok(json!({ "reloaded": true, "warnings": warnings }))
            }
            Err(failure) => {
                self.stats.reloads_refused.fetch_add(1, Ordering::Relaxed);
                state.last_error = Some(failure.to_string());
                tracing::error!(error = %failure, "configuration refused; the previous one stays active");
                Err(failure)
            }
        }
    }
}

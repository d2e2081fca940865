//! Decides by health checks if a server is up.

use std::time::Duration;

use crate::policy::price::StatusMatch;

/// A health check: a request that is sent to each server again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The target of the request.
    pub path: String,
    /// Time between two checks of a server.
    pub interval: Duration,
    /// Longest time of a check.
    pub timeout: Duration,
    /// The statuses of healthy servers.
    pub status: StatusMatch,
    /// Failed checks in a row after which a server is down.
    pub down_after: u32,
    /// Successful checks in a row after which a server is up again.
    pub up_after: u32,
}

/// What the checks of a server showed so far. A server is up until checks fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// True if the server is down.
    pub is_down: bool,
    /// Checks in a row that contradicted `is_down`.
    contrary: u32,
}

impl Health {
    /// Takes in the result of a check. Returns true if the server went down or came up.
    pub fn note(&mut self, is_ok: bool, check: &HealthCheck) -> bool {
        if is_ok != self.is_down {
            self.contrary = 0;
            return false;
        }
        self.contrary += 1;
        let needed = if self.is_down { check.up_after } else { check.down_after };
        if self.contrary < needed {
            return false;
        }
        *self = Self { is_down: !self.is_down, contrary: 0 };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_changes_after_checks_in_a_row() {
        let check = HealthCheck {
            path: "/".to_owned(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            status: StatusMatch::Class(2),
            down_after: 3,
            up_after: 2,
        };
        let mut health = Health::default();
        let checks = "ok fail fail ok fail fail fail fail ok fail ok ok ok fail";
        let down: Vec<bool> = checks
            .split(' ')
            .map(|result| {
                health.note(result == "ok", &check);
                health.is_down
            })
            .collect();
        let (up, out) = (false, true);
        assert_eq!(down, [up, up, up, up, up, up, out, out, out, out, out, up, up, up]);
    }
}

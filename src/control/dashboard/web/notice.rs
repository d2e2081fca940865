//! What a page says about what has just happened. The words are here and not in the address, so that no link can make the
//! dashboard say something else.

/// What has just happened, by its name in the query's `done`.
#[derive(Clone, Copy, Debug)]
pub(in crate::control::dashboard) struct Notice(pub(in crate::control::dashboard) &'static str);

const NOTICES: [(&str, &str); 38] = [
    ("key-changed", "Key changed."),
    ("paid", "Thank you. The credits arrive once the payment is confirmed, usually within a minute."),
    ("top-up-saved", "Automatic top-up saved."),
    ("group-saved", "Group saved."),
    ("group-deleted", "Group deleted."),
    ("key-disabled", "Key disabled. Requests with it are refused from now on."),
    ("key-enabled", "Key enabled. Requests with it are served again."),
    ("key-revoked", "Key revoked. Requests with it are refused from now on."),
    ("key-ended", "The old secret is refused from now on."),
    ("alerts-saved", "Alerts saved."),
    ("mail-on", "You get an e-mail when credits run low or are used up."),
    ("mail-off", "You get no more e-mail about credits."),
    ("renewal-saved", "Renewal saved."),
    ("endpoint-changed", "Endpoint changed."),
    ("endpoint-deleted", "Endpoint deleted. Nothing is sent to it any more."),
    ("endpoint-tested", "A test message is on its way: see the deliveries."),
    ("delivery-resent", "The message is sent again: see the deliveries."),
    ("invited", "Invitation sent by e-mail. It works for a week."),
    ("uninvited", "Invitation taken back. Its link works no longer."),
    ("member-changed", "Role changed. Where they were signed in, they sign in again."),
    ("member-removed", "Access taken."),
    ("name-saved", "Name saved."),
    ("password-saved", "Password changed. You are signed out everywhere else."),
    ("sessions-ended", "Signed out there."),
    ("codes-off", "One-time codes are off."),
    ("account-created", "Account created."),
    ("account-changed", "Account changed."),
    ("account-suspended", "Account suspended. All its requests are refused from now on."),
    ("account-resumed", "Account resumed. Its requests are served again."),
    ("account-approved", "Account approved: it has its plan and its opening credits."),
    ("account-declined", "Account declined: it is closed."),
    ("granted", "Booked."),
    ("given-back", "Credits given back."),
    ("token-revoked", "Token revoked. It is refused from now on."),
    ("user-changed", "User changed."),
    ("user-deleted", "User deleted."),
    ("reloaded", "Configuration read again, and in force."),
    ("signed-out", "You are signed out."),
];

impl Notice {
    /// What a query says has happened.
    pub(in crate::control::dashboard) fn of(query: Option<&str>) -> Option<Self> {
        let mut fields = form_urlencoded::parse(query?.as_bytes());
        let (_, name) = fields.find(|(field, _)| field == "done")?;
        NOTICES.iter().find(|(known, _)| *known == name).map(|(_, text)| Self(text))
    }
}

//! The secret of a key, shown once.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::html;

use super::key::{Ids, found};
use crate::control::dashboard::account::docs::first_line;
use crate::control::dashboard::html::parts::secret_line;
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, InAccount, See};
use crate::control::operations::{KeyView, ShownKey};

/// Keeps a key's secret for the next page.
pub(super) fn show_secret(site: &Site, of: &InAccount, view: &KeyView) {
    if let ShownKey::Whole(secret) = &view.key {
        let secrets = vec![secret.clone()];
        site.reveals.put(of.visitor.session, &view.id.to_string(), secrets, site.control.now());
    }
}

/// Shows a secret once.
pub(in crate::control::dashboard) async fn secret(
    State(site): State<Site>,
    of: InAccount,
    ids: Ids,
) -> Result<Response, Failure> {
    let key = found(&site, &of, &ids).await?;
    let page = of.at(&format!("keys/{}", key.id));
    let Some(secrets) = site.reveals.take(of.visitor.session, &key.id.to_string(), site.control.now()) else {
        return Ok(See(page).into_response());
    };
    let secret = secrets.first().map(|secret| secret.reveal().as_str()).unwrap_or_default();
    let line = first_line(&site, secret)?;
    let frame =
        of.frame(&site, "keys", "Save your key", "This is the only time that the whole key is shown.");
    Ok(frame.page(html! {
        section.card data-unsaved="" {
            div.body {
                div.banner.warn { span { "Tollgate keeps only the SHA-256 of this key. Copy it now; nobody can show it again." } }
                h3 { (key.label) }
                div.secret {
                    code #secret data-secret="" { (secret) }
                    button.hidden type="button" data-js="" data-reveal="secret" { "Reveal" }
                    button.primary.hidden type="button" data-js="" data-copy="secret" { "Copy" }
                }
                h3 { "As an environment variable" }
                (secret_line("env-line", &format!("API_KEY={secret}")))
                h3 { "A first request" }
                (secret_line("curl-line", &line))
                p {}
                a.button.primary href=(page) data-saved="" { "I have saved it" }
            }
        }
    }))
}

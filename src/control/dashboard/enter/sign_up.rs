//! Signing up.

use axum::extract::State;
use axum::response::Response;
use maud::html;

use super::{first, verify_page};
use crate::control::dashboard::html::enter_page;
use crate::control::dashboard::html::parts::{Field, trouble};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, From};
use crate::control::operations::{OperationError, SignUpInput, SignedUp};
use crate::snapshot::dashboard::SignUp;

fn form(site: &Site, name: &str, email: &str, error: Option<&OperationError>) -> Response {
    let fields = [
        Field {
            name: "name",
            label: "Your name or company",
            value: name,
            is_needed: true,
            autocomplete: "name",
            ..Field::default()
        },
        Field {
            name: "email",
            label: "E-mail address",
            kind: "email",
            value: email,
            is_needed: true,
            autocomplete: "username",
            ..Field::default()
        },
        Field {
            name: "password",
            label: "Password",
            kind: "password",
            hint: "At least 10 characters.",
            is_needed: true,
            autocomplete: "new-password",
            ..Field::default()
        },
    ];
    // Where e-mail is configured, the password is chosen once the address is verified.
    let has_mail = site.settings().is_ok_and(|settings| settings.smtp.is_some());
    let fields = fields.iter().filter(|field| !has_mail || field.name == "email");
    let content = html! {
        h1 { "Sign up" }
        form.stack method="post" action="/sign-up" {
            (trouble(error, &["name", "email", "password"]))
            @for field in fields { (field.render(error)) }
            button.primary type="submit" { "Create account" }
        }
        p {}
        p { "Have an account? " a href="/sign-in" { "Sign in" } }
    };
    let response = enter_page(site, "Sign up", content);
    Failure::told(response, error)
}

/// The form to sign up.
pub(in crate::control::dashboard) async fn sign_up_page(
    State(site): State<Site>,
) -> Result<Response, Failure> {
    match site.settings()?.sign_up {
        SignUp::Open | SignUp::Approval => Ok(form(&site, "", "", None)),
        SignUp::Off | SignUp::Invite => {
            Err(OperationError::Missing("nobody can sign up here: ask for an invitation".to_owned()).into())
        }
    }
}

/// Signs up.
pub(in crate::control::dashboard) async fn sign_up(
    State(site): State<Site>,
    From(origin): From,
    fields: Fields,
) -> Result<Response, Failure> {
    let (name, text) = (fields.get("name"), fields.get("email"));
    let email = match text.parse() {
        Ok(email) => email,
        Err(message) => {
            let message = str::to_owned(message);
            return Ok(form(&site, name, text, Some(&OperationError::Invalid { field: "email", message })));
        }
    };
    let input = SignUpInput { email, name: name.to_owned(), password: fields.secret("password") };
    match site.control.sign_up(input, &origin).await {
        Ok(SignedUp::Done(session)) => first(&site, &session, None),
        Ok(SignedUp::Verify) => Ok(verify_page(&site)),
        Err(error) => Ok(form(&site, name, text, Some(&error))),
    }
}

//! Parses `[dashboard]`: pages for customers and operators.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Uri;

use crate::config::files;
use crate::config::parse::context::{Context, single};
use crate::config::parse::values::held;
use crate::config::raw::{self, At};
use crate::snapshot::Plan;
use crate::snapshot::dashboard::{Dashboard, Picture, Rgb, SignUp, Smtp};
use crate::types::{Credits, NameId, NumberMap, Secret};

/// Largest logo, in bytes: it is part of every page's first load.
const MAX_LOGO: u64 = 64 * 1024;
/// Longest name of the API, in characters.
const MAX_NAME: usize = 60;

type Plans = NumberMap<NameId, Plan>;

/// The settings of the dashboard; `None` if no file has the section.
pub(in crate::config::parse) fn build(
    context: &mut Context,
    files: &[raw::File],
    plans: &Plans,
) -> Option<Dashboard> {
    files.iter().find(|file| file.dashboard.is_some())?;
    let raw = single(context, files, "dashboard", |file| file.dashboard.as_ref());
    let sign_up = raw.sign_up.as_ref().map_or(SignUp::Off, |text| sign_up(context, text));
    let smtp = raw.smtp.as_ref().and_then(|url| smtp(context, url, raw.from.as_ref()));
    if let (None, Some(from)) = (&raw.smtp, &raw.from) {
        context.error(&from.span, "`from` is the sender of e-mail, which needs `smtp`");
    }
    if let (SignUp::Approval, None, Some(mode)) = (sign_up, &raw.sandbox_plan, &raw.sign_up) {
        let help = "add sandbox_plan = \"NAME\": the plan until an operator approves";
        context.error_with(&mode.span, "sign-up by approval needs a plan for new accounts", help);
    }
    let credits = raw.credits.as_ref().and_then(|credits| {
        let read = context.credits(credits)?;
        (!read.is_negative()).then_some(read).or_else(|| {
            context.error(&credits.span, "an opening grant is not negative");
            None
        })
    });
    Some(Dashboard {
        listen: raw.listen.as_ref().and_then(|listen| address(context, listen)),
        url: raw.url.as_ref().and_then(|url| origin(context, url)),
        api_url: raw.api_url.as_ref().and_then(|url| base(context, url)),
        sign_up,
        plan: raw.plan.as_ref().and_then(|plan| plan_name(context, plan, plans)),
        sandbox_plan: raw.sandbox_plan.as_ref().and_then(|plan| plan_name(context, plan, plans)),
        credits: credits.unwrap_or(Credits::ZERO),
        name: raw.name.as_ref().and_then(|name| self::name(context, name)).unwrap_or("API".to_owned()),
        logo: raw.logo.as_ref().and_then(|path| logo(context, path)),
        accent: raw.accent.as_ref().and_then(|colour| accent(context, colour)),
        openapi: raw.openapi.as_ref().and_then(|path| openapi(context, path)),
        smtp,
    })
}

fn address(context: &mut Context, listen: &At<String>) -> Option<SocketAddr> {
    let parsed = listen.value.parse().map_err(|_| "an address looks like \"127.0.0.1:8082\"");
    context.check(&listen.span, parsed)
}

/// A URL without a path, user or query, as browsers write it in `Origin`.
fn origin(context: &mut Context, url: &At<String>) -> Option<String> {
    let text = base(context, url)?;
    let has_path = text.parse::<Uri>().is_ok_and(|uri| uri.path() != "/");
    if has_path {
        context.error(&url.span, "the dashboard's url has no path: \"https://portal.example.com\"");
    }
    Some(text)
}

/// A URL that others can be made of by adding a path.
fn base(context: &mut Context, url: &At<String>) -> Option<String> {
    let text = url.value.trim_end_matches('/');
    // Names of schemes and hosts are the same in capital letters; paths are not.
    let host = text.find("://").map_or(0, |at| at + 3);
    let end = text.get(host..).and_then(|rest| rest.find('/')).map_or(text.len(), |at| host + at);
    let text = format!(
        "{}{}",
        text.get(..end).unwrap_or(text).to_ascii_lowercase(),
        text.get(end..).unwrap_or_default()
    );
    let is_plain = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && uri.query().is_none()
    };
    let parsed =
        text.parse::<Uri>().ok().filter(is_plain).ok_or("this looks like \"https://api.example.com\"");
    context.check(&url.span, parsed)?;
    Some(text)
}

fn sign_up(context: &mut Context, text: &At<String>) -> SignUp {
    match text.value.as_str() {
        "off" => SignUp::Off,
        "open" => SignUp::Open,
        "approval" => SignUp::Approval,
        "invite" => SignUp::Invite,
        _ => {
            context.unknown("way to sign up", text, ["off", "open", "approval", "invite"].into_iter());
            SignUp::Off
        }
    }
}

fn plan_name(context: &mut Context, plan: &At<String>, plans: &Plans) -> Option<String> {
    if plans.contains_key(&NameId::of(&plan.value)) {
        return Some(plan.value.clone());
    }
    if !context.is_cut("plans") {
        let names: Vec<String> = plans.values().map(|plan| plan.name.to_string()).collect();
        context.unknown("plan", plan, names.iter().map(String::as_str));
    }
    None
}

fn name(context: &mut Context, name: &At<String>) -> Option<String> {
    let text = name.value.trim();
    let fits = !text.is_empty() && text.chars().count() <= MAX_NAME && !text.chars().any(char::is_control);
    if !fits {
        context.error(&name.span, format!("a name is 1 to {MAX_NAME} characters on one line"));
    }
    fits.then(|| text.to_owned())
}

fn accent(context: &mut Context, colour: &At<String>) -> Option<Rgb> {
    let digits = colour.value.strip_prefix('#').and_then(|digits| hex::decode(digits).ok());
    let rgb = digits.and_then(|bytes| <[u8; 3]>::try_from(bytes).ok());
    context.check(&colour.span, rgb.map(Rgb).ok_or("a colour looks like \"#3355ff\""))
}

/// Reads a file beside the configuration file. It is watched like that.
fn read(context: &mut Context, path: &At<String>, most: u64) -> Option<Vec<u8>> {
    let file = context.folder().join(&path.value);
    let bytes = files::read(&file, most);
    context.report.secrets.push((file.clone(), held(&bytes)));
    let read = bytes.map_err(|error| format!("{} cannot be read: {error}", file.display()));
    context.check(&path.span, read)
}

fn logo(context: &mut Context, path: &At<String>) -> Option<Picture> {
    let known =
        [(".svg", "image/svg+xml"), (".png", "image/png"), (".webp", "image/webp"), (".jpg", "image/jpeg")];
    let Some((_, media_type)) = known.into_iter().find(|(end, _)| path.value.ends_with(end)) else {
        context.error(&path.span, "a logo is an .svg, .png, .webp or .jpg file");
        return None;
    };
    let bytes = read(context, path, MAX_LOGO)?;
    Some(Picture { media_type, bytes: bytes.into() })
}

fn openapi(context: &mut Context, path: &At<String>) -> Option<Arc<str>> {
    let bytes = read(context, path, files::MAX_SECRET)?;
    let text = String::from_utf8(bytes).ok().filter(|text| {
        serde_json::from_str::<serde_json::Value>(text).is_ok_and(|value| value["openapi"].is_string())
    });
    context.check(&path.span, text.map(Arc::from).ok_or("this is no OpenAPI description in JSON"))
}

fn smtp(context: &mut Context, url: &At<raw::Secret>, from: Option<&At<String>>) -> Option<Smtp> {
    let text = context.secret(&url.span, &url.value.0)?;
    let is_url = text.starts_with("smtp://") || text.starts_with("smtps://");
    if !is_url || text.parse::<Uri>().is_err() {
        context.error(&url.span, "the mail server looks like \"smtps://user:password@mail.example.com\"");
        return None;
    }
    let Some(from) = from else {
        context.error_with(&url.span, "e-mail needs a sender", "add from = \"api@example.com\"");
        return None;
    };
    let parsed = from.value.parse::<lettre::message::Mailbox>();
    context.check(&from.span, parsed.map_err(|error| format!("this is no e-mail address: {error}")))?;
    Some(Smtp { url: Secret::new(text), from: from.value.clone() })
}

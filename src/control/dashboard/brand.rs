//! The operator's name, logo and accent colour.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::site::Site;
use super::web::Failure;
use crate::snapshot::dashboard::Rgb;

/// The accent where the file names none.
const ACCENT: Rgb = Rgb([0x2f, 0x55, 0xd4]);
/// The surfaces that text in the accent's colour stands on: light and dark.
const SURFACES: [Rgb; 2] = [Rgb([0xff, 0xff, 0xff]), Rgb([0x1d, 0x22, 0x2a])];
/// The least contrast of text (WCAG 2.2, 1.4.3), with a margin for quiet backgrounds.
const CONTRAST: f64 = 5.2;

/// The relative luminance of a colour (WCAG 2.2).
fn luminance(Rgb(parts): Rgb) -> f64 {
    let linear = parts.map(|part| {
        let part = f64::from(part) / 255.0;
        if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    });
    0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
}

/// The contrast of two colours, from 1 to 21 (WCAG 2.2).
fn contrast(one: Rgb, other: Rgb) -> f64 {
    let (one, other) = (luminance(one) + 0.05, luminance(other) + 0.05);
    if one > other { one / other } else { other / one }
}

/// A colour on the way to another, in percent.
fn mixed(Rgb(from): Rgb, Rgb(to): Rgb, percent: u16) -> Rgb {
    let part = |from: u8, to: u8| {
        let sum = u16::from(from) * (100 - percent) + u16::from(to) * percent;
        u8::try_from(sum / 100).unwrap_or(u8::MAX)
    };
    Rgb([part(from[0], to[0]), part(from[1], to[1]), part(from[2], to[2])])
}

/// The colour, darkened or lightened until it can be read on a surface.
fn readable(colour: Rgb, surface: Rgb) -> Rgb {
    let away = if luminance(surface) > 0.5 { Rgb([0; 3]) } else { Rgb([255; 3]) };
    let steps = (0..=100).map(|percent| mixed(colour, away, percent));
    steps.into_iter().find(|step| contrast(*step, surface) >= CONTRAST).unwrap_or(away)
}

/// Black or white, whichever can be read better on a colour.
fn on(colour: Rgb) -> Rgb {
    let (white, black) = (Rgb([255; 3]), Rgb([0; 3]));
    if contrast(white, colour) >= contrast(black, colour) { white } else { black }
}

fn hex(Rgb(parts): Rgb) -> String {
    format!("#{}", hex::encode(parts))
}

fn variables(accent: Rgb, surface: Rgb) -> String {
    let quiet = mixed(surface, accent, 9);
    let (text, on) = (readable(accent, quiet), on(accent));
    let (accent, on, text, quiet) = (hex(accent), hex(on), hex(text), hex(quiet));
    format!(":root{{--accent:{accent};--on-accent:{on};--accent-text:{text};--accent-quiet:{quiet}}}")
}

fn style(accent: Rgb) -> String {
    let [light, dark] = SURFACES;
    format!("{}@media (prefers-color-scheme:dark){{{}}}", variables(accent, light), variables(accent, dark))
}

fn file(media_type: &'static str, bytes: Vec<u8>) -> Response {
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    // A picture of the operator's may contain scripts; none runs.
    let sandbox = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox");
    headers.insert(header::CONTENT_SECURITY_POLICY, sandbox);
    response
}

/// The accent's style sheet.
pub(super) async fn stylesheet(State(site): State<Site>) -> Result<Response, Failure> {
    let accent = site.settings()?.accent.unwrap_or(ACCENT);
    Ok(file("text/css; charset=utf-8", style(accent).into_bytes()))
}

/// The logo.
pub(super) async fn logo(State(site): State<Site>) -> Result<Response, Failure> {
    Ok(match &site.settings()?.logo {
        Some(logo) => file(logo.media_type, logo.bytes.to_vec()),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

/// The icon of the browser's tab: a square in the accent's colour.
pub(super) async fn icon(State(site): State<Site>) -> Result<Response, Failure> {
    let accent = hex(site.settings()?.accent.unwrap_or(ACCENT));
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 20 20\"><rect width=\"20\" height=\"20\" rx=\"6\" fill=\"{accent}\"/></svg>"
    );
    Ok(file("image/svg+xml", svg.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_accent_can_be_read(colour in any::<[u8; 3]>()) {
            for surface in SURFACES {
                let quiet = mixed(surface, Rgb(colour), 9);
                let text = readable(Rgb(colour), quiet);
                prop_assert!(contrast(text, quiet) >= 4.5 && contrast(text, surface) >= 4.5, "{text:?} on {quiet:?}");
            }
            prop_assert!(contrast(on(Rgb(colour)), Rgb(colour)) >= 4.5);
        }
    }

    #[test]
    fn black_on_white_is_the_greatest_contrast() {
        assert!((contrast(Rgb([0; 3]), Rgb([255; 3])) - 21.0).abs() < 0.001);
        assert!((contrast(Rgb([9; 3]), Rgb([9; 3])) - 1.0).abs() < 0.001);
    }
}

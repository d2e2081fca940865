//! One-time codes of an authenticator app (RFC 6238), and recovery codes for when it is lost.

use totp_rs::{Algorithm, Builder, Totp};

use super::Visitor;
use crate::control::operations::error::{OperationError, Result};
use crate::control::{Control, random};
use crate::ledger::store::{OneTimeCodes, UserRow};
use crate::types::{KeyHash, Secret, WallTime};

/// Bytes of the secret (RFC 4226, 4: at least 128 bits, 160 recommended).
const SECRET: usize = 20;
/// Number of recovery codes.
const RECOVERY: usize = 10;
/// Random bytes of a recovery code.
const RECOVERY_BYTES: usize = 10;

/// What a user needs to set up an authenticator app.
#[derive(Debug)]
pub struct CodesSetup {
    /// The secret in base32.
    pub secret: Secret<String>,
    /// The secret as a QR code, in SVG.
    pub picture: String,
}

/// Recovery codes, shown once, and the secret of the session that goes on.
#[derive(Debug)]
pub struct RecoveryCodes {
    /// Each can be used once in place of a one-time code.
    pub codes: Vec<Secret<String>>,
    /// The renewed session.
    pub session: Secret<String>,
}

fn totp(secret: &[u8], email: &str, issuer: &str) -> Result<Totp> {
    let text = |text: &str| text.replace(':', " ");
    let built = Builder::new()
        .with_algorithm(Algorithm::SHA1) // the only one that all authenticator apps know
        .with_secret(secret.to_vec())
        .with_account_name(text(email))
        .with_issuer(Some(text(issuer)))
        .build();
    built.map_err(|error| OperationError::Unavailable(format!("one-time codes cannot be made: {error}")))
}

/// A recovery code as it was typed, without what only makes it easier to read.
fn plain(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

/// Checks a one-time code or a recovery code, and notes that it is used.
///
/// # Errors
/// If it is wrong, or was used already.
pub(super) fn check_code(codes: &mut OneTimeCodes, code: &str, now: WallTime) -> Result<()> {
    let code = plain(code);
    let seconds = u64::try_from(now.0 / 1000).unwrap_or_default();
    let step = totp(&codes.secret, "", "")?.check(&code, seconds);
    if let Some(step) = step.filter(|step| *step > codes.last_step) {
        codes.last_step = step;
        return Ok(());
    }
    let hash = KeyHash::of(code.as_bytes());
    let left = codes.recovery.len();
    codes.recovery.retain(|known| *known != hash);
    if codes.recovery.len() < left {
        return Ok(());
    }
    OperationError::invalid("code", "this code is wrong, or was used already")
}

fn recovery_codes() -> Result<(Vec<Secret<String>>, Vec<KeyHash>)> {
    let mut codes = Vec::with_capacity(RECOVERY);
    for _ in 0..RECOVERY {
        let digits = hex::encode(random::<RECOVERY_BYTES>()?);
        let groups: Vec<&str> =
            digits.as_bytes().chunks(5).filter_map(|part| std::str::from_utf8(part).ok()).collect();
        codes.push(groups.join("-"));
    }
    let hashes = codes.iter().map(|code| KeyHash::of(plain(code).as_bytes())).collect();
    Ok((codes.into_iter().map(Secret::new).collect(), hashes))
}

impl Control {
    /// A new secret for an authenticator app, or one that was made before. Nothing is written yet.
    ///
    /// # Errors
    /// If the secret cannot be one.
    pub fn set_up_codes(&self, visitor: &Visitor, known: Option<&str>) -> Result<CodesSetup> {
        let (_, user) = visitor.own()?;
        let secret = match known {
            Some(text) => self.read_secret(text)?,
            None => random::<SECRET>()?.to_vec(),
        };
        let totp = totp(&secret, &user.email, &self.dashboard()?.name)?;
        let failed = |error: String| OperationError::Unavailable(format!("no QR code can be made: {error}"));
        let url = totp.to_url().map_err(|error| failed(error.to_string()))?;
        let code = qrcode::QrCode::new(url.as_bytes()).map_err(|error| failed(error.to_string()))?;
        let picture = code.render::<qrcode::render::svg::Color<'_>>().min_dimensions(200, 200).build();
        let base32 = data_encoding::BASE32_NOPAD.encode(&secret);
        Ok(CodesSetup { secret: Secret::new(base32), picture })
    }

    fn read_secret(&self, text: &str) -> Result<Vec<u8>> {
        let bytes = data_encoding::BASE32_NOPAD.decode(text.as_bytes());
        let bytes = bytes.ok().filter(|bytes| bytes.len() == SECRET);
        bytes.ok_or_else(|| OperationError::Missing("begin again".to_owned()))
    }

    /// Turns one-time codes on, once the user shows a code of the new secret. Their sessions end, and a new one begins.
    ///
    /// # Errors
    /// If the code is wrong.
    pub async fn turn_codes_on(&self, visitor: &Visitor, secret: &str, code: &str) -> Result<RecoveryCodes> {
        let (caller, user) = visitor.own()?;
        self.people.attempt(&visitor.origin, Some(&user.email), self.clock.now())?;
        let mut own = OneTimeCodes { secret: self.read_secret(secret)?, last_step: 0, recovery: Vec::new() };
        check_code(&mut own, code, self.clock.wall())?;
        let (codes, hashes) = recovery_codes()?;
        own.recovery = hashes;
        let (session, edits) = self.renewed(visitor)?;
        let edit = |row: &mut UserRow| {
            if row.codes.is_some() {
                return Err(OperationError::Conflict("one-time codes are on already".to_owned()));
            }
            row.codes = Some(own);
            Ok(edits)
        };
        self.edit_user(&caller, &user.id, "user.codes_on", edit).await?;
        Ok(RecoveryCodes { codes, session })
    }

    /// Turns one-time codes off, for a user who shows a code. Their sessions end, and a new one begins.
    ///
    /// # Errors
    /// If the code is wrong.
    pub async fn turn_codes_off(&self, visitor: &Visitor, code: &str) -> Result<Secret<String>> {
        let (caller, user) = visitor.own()?;
        self.people.attempt(&visitor.origin, Some(&user.email), self.clock.now())?;
        let (secret, edits) = self.renewed(visitor)?;
        let now = self.clock.wall();
        let edit = |row: &mut UserRow| {
            let mut known = row
                .codes
                .take()
                .ok_or_else(|| OperationError::Conflict("one-time codes are off already".to_owned()))?;
            check_code(&mut known, code, now)?;
            Ok(edits)
        };
        self.edit_user(&caller, &user.id, "user.codes_off", edit).await?;
        Ok(secret)
    }
}

//! Scans a client's bytes before hyper reads them, to check and limit what hyper does not.

mod http1;
mod http2;

pub(super) use http1::HeadScanner;
pub(in crate::gateway) use http1::HeadVerdict;
pub(super) use http2::FrameScanner;

/// The scanner of a connection.
#[derive(Debug)]
pub(super) enum Scanner {
    /// HTTP/1.1: checks heads and framing.
    Heads(HeadScanner),
    /// HTTP/2: counts unproductive frames.
    Frames(Box<FrameScanner>),
}

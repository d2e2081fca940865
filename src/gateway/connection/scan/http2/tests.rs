//! Tests which HTTP/2 frames count as unproductive, and what they cost.

use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame_of(1, kind, flags, payload)
}

fn frame_of(stream: u32, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn after_preface() -> FrameScanner {
    let mut scanner = FrameScanner::new(Moment(0), false);
    scanner.scan(PREFACE, Moment(0)).unwrap();
    scanner
}

#[test]
fn unproductive_frames_are_limited_and_requests_are_not() {
    let mut scanner = after_preface();
    let later = Moment(SECOND / 2);
    for (now, most) in [(Moment(0), 500), (later, 250)] {
        for _ in 0..most {
            scanner.scan(&frame(PING, 0, &[0; 8]), now).unwrap();
        }
    }
    assert!(scanner.scan(&frame(DATA, 0, &[]), later).is_err(), "one more unproductive frame");
    // A hundred streams at a time: header blocks, then requests, then DATA or trailers.
    let later = Moment(SECOND);
    for round in 0..100 {
        for at in 0..100 {
            let stream = 200 * round + 2 * at + 1;
            scanner.scan(&frame_of(stream, HEADERS, END_HEADERS, &[0; 30]), later).unwrap();
        }
        for at in 0..100 {
            scanner.request_began();
            let stream = 200 * round + 2 * at + 1;
            scanner.scan(&frame_of(stream, DATA, 0, &[0; 30]), later).unwrap();
            match at % 2 {
                0 => scanner.scan(&frame_of(stream, HEADERS, END_HEADERS | END_STREAM, &[0; 9]), later),
                _ => scanner.scan(&frame_of(stream, DATA, END_STREAM, &[]), later),
            }
            .unwrap();
        }
    }
}

#[test]
fn frames_on_closed_streams_and_refused_trailers_are_unproductive() {
    let head = |stream| frame_of(stream, HEADERS, END_HEADERS, &[0; 30]);
    let end = |kind, payload: &[u8]| frame(kind, END_HEADERS | END_STREAM, payload);
    let cases =
        [(DATA, &[][..], 501), (DATA, &[1; 9], 501), (HEADERS, &[1; 64], 501), (HEADERS, &[1; 3000], 5)];
    for (kind, payload, most) in cases {
        let mut scanner = after_preface();
        scanner.scan(&head(1), Moment(0)).unwrap();
        scanner.request_began();
        for _ in 0..most {
            scanner.scan(&end(kind, payload), Moment(0)).unwrap();
        }
        assert!(scanner.scan(&end(kind, payload), Moment(0)).is_err(), "{kind}");
    }
}

#[test]
fn rejected_header_blocks_cost_by_their_size() {
    for (size, is_proxy, most) in [(20, false, 501), (1000, false, 16), (9000, false, 6), (9000, true, 501)] {
        let mut scanner = FrameScanner::new(Moment(0), is_proxy);
        scanner.scan(PREFACE, Moment(0)).unwrap();
        let ask = |scanner: &mut FrameScanner, at: u32| {
            let head = frame_of(2 * at + 1, HEADERS, END_HEADERS, &vec![0; size]);
            scanner.scan(&head, Moment(0)).unwrap();
        };
        for at in 0..most {
            ask(&mut scanner, at);
            assert_eq!(scanner.end_poll(Moment(0)), Ok(()), "{size} {at}");
        }
        ask(&mut scanner, most);
        assert_eq!(scanner.end_poll(Moment(0)), Err(Flood), "{size}");
    }
}

#[test]
fn requests_do_not_pay_for_rejected_header_blocks_beside_them() {
    let mut scanner = after_preface();
    let mut polls = 0..1_000;
    let flood = polls.find(|at| {
        for each in 0..2 {
            let head = frame_of(4 * at + 2 * each + 1, HEADERS, END_HEADERS, &[0; 3000]);
            scanner.scan(&head, Moment(0)).unwrap();
        }
        scanner.request_began();
        scanner.end_poll(Moment(0)).is_err()
    });
    assert!(flood.is_some_and(|polls| polls < 20), "{flood:?}");
}

#[test]
fn frames_that_accompany_responses_are_free_and_resets_are_not() {
    let mut scanner = after_preface();
    let serve = |scanner: &mut FrameScanner, at: u32| {
        scanner.scan(&frame_of(2 * at + 1, HEADERS, END_HEADERS | END_STREAM, &[0; 30]), Moment(0)).unwrap();
        scanner.request_began();
        scanner.end_poll(Moment(0)).unwrap();
    };
    for at in 0..10_000 {
        serve(&mut scanner, at);
        for _ in 0..3 {
            scanner.chunk_given();
            scanner.scan(&frame(PING, 0, &[0; 8]), Moment(0)).unwrap();
            scanner.scan(&frame(8, 0, &[0; 4]), Moment(0)).unwrap();
        }
    }
    let reset = frame(RST_STREAM, 0, &[0; 4]);
    let resets = (10_000..20_000).find(|at| {
        serve(&mut scanner, *at);
        scanner.scan(&reset, Moment(0)).is_err()
    });
    assert!(resets.is_some_and(|at| at < 10_600), "{resets:?}");
}

#[test]
fn header_blocks_that_become_requests_one_poll_later_cost_nothing() {
    let mut scanner = after_preface();
    for at in 0..1_000 {
        scanner.scan(&frame_of(2 * at + 1, HEADERS, END_HEADERS, &[0; 2000]), Moment(0)).unwrap();
        scanner.end_poll(Moment(0)).unwrap();
        scanner.request_began();
        scanner.end_poll(Moment(0)).unwrap();
    }
}

#[test]
fn one_poll_reads_a_bounded_amount() {
    let full = |piece: &[u8]| {
        let mut scanner = after_preface();
        scanner.end_poll(Moment(0)).unwrap();
        let count = (1..).find(|_| {
            scanner.scan(piece, Moment(0)).unwrap();
            scanner.has_read_enough()
        });
        scanner.end_poll(Moment(0)).unwrap();
        assert!(!scanner.has_read_enough());
        count.unwrap()
    };
    assert_eq!(full(&frame(PING, 0, &[0; 8])), 256);
    assert_eq!(full(&frame(DATA, 0, &[0; 8183])), 32);
    assert_eq!(full(&frame_of(1_000, HEADERS, END_HEADERS, &[0; 4 * 1024])), 1);
}

#[test]
fn a_client_that_reads_much_may_send_many_window_updates() {
    const WINDOW_UPDATE: u8 = 8;
    let mut scanner = after_preface();
    for _ in 0..100_000 {
        scanner.bytes_written(1024);
        scanner.scan(&frame(WINDOW_UPDATE, 0, &[0; 4]), Moment(0)).unwrap();
        scanner.scan(&frame(WINDOW_UPDATE, 0, &[0; 4]), Moment(0)).unwrap();
    }
}

proptest! {
    #[test]
    fn a_header_block_is_incomplete_until_its_last_byte(cuts in prop::collection::vec(1_usize..20, 0..40)) {
        let mut bytes = frame(HEADERS, 0, &[1; 20]);
        bytes.extend(frame(CONTINUATION, 0, &[2; 10]));
        bytes.extend(frame(CONTINUATION, END_HEADERS, &[3; 5]));
        let mut scanner = after_preface();
        let mut rest = &bytes[..];
        for (at, cut) in cuts.into_iter().enumerate() {
            let (piece, more) = rest.split_at(cut.min(rest.len()));
            scanner.scan(piece, Moment(at as u64)).unwrap();
            rest = more;
            let sent = bytes.len() - rest.len();
            prop_assert_eq!(scanner.incomplete_block_since().is_some(), (FRAME_HEADER..bytes.len()).contains(&sent));
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = FrameScanner::new(Moment(0), false).scan(&bytes, Moment(0));
    }
}

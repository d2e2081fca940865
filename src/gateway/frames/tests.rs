//! What is counted of an HTTP/2 connection's frames, and what is not.

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

fn begun() -> FrameScanner {
    let mut scanner = FrameScanner::new(Moment(0), false);
    scanner.walk(PREFACE, Moment(0)).unwrap();
    scanner
}

#[test]
fn work_for_nothing_is_bounded_and_requests_are_not() {
    let mut scanner = begun();
    let later = Moment(SECOND / 2);
    for (now, most) in [(Moment(0), 500), (later, 250)] {
        for _ in 0..most {
            scanner.walk(&frame(PING, 0, &[0; 8]), now).unwrap();
        }
    }
    assert!(scanner.walk(&frame(DATA, 0, &[]), later).is_err(), "one more that serves nothing");
    // A hundred at a time: heads, then what they are, then data and trailers.
    let later = Moment(SECOND);
    for round in 0..100 {
        for at in 0..100 {
            let stream = 200 * round + 2 * at + 1;
            scanner.walk(&frame_of(stream, HEADERS, END_HEADERS, &[0; 30]), later).unwrap();
        }
        for at in 0..100 {
            scanner.begun();
            let stream = 200 * round + 2 * at + 1;
            scanner.walk(&frame_of(stream, DATA, 0, &[0; 30]), later).unwrap();
            match at % 2 {
                0 => scanner.walk(&frame_of(stream, HEADERS, END_HEADERS | END_STREAM, &[0; 9]), later),
                _ => scanner.walk(&frame_of(stream, DATA, END_STREAM, &[]), later),
            }
            .unwrap();
        }
    }
}

#[test]
fn what_comes_for_a_stream_that_is_over_or_is_refused_serves_no_request() {
    let head = |stream| frame_of(stream, HEADERS, END_HEADERS, &[0; 30]);
    let end = |kind, payload: &[u8]| frame(kind, END_HEADERS | END_STREAM, payload);
    let cases =
        [(DATA, &[][..], 501), (DATA, &[1; 9], 501), (HEADERS, &[1; 64], 501), (HEADERS, &[1; 3000], 5)];
    for (kind, payload, most) in cases {
        let mut scanner = begun();
        scanner.walk(&head(1), Moment(0)).unwrap();
        scanner.begun();
        for _ in 0..most {
            scanner.walk(&end(kind, payload), Moment(0)).unwrap();
        }
        assert!(scanner.walk(&end(kind, payload), Moment(0)).is_err(), "{kind}");
    }
}

#[test]
fn heads_that_become_no_request_cost_by_their_size() {
    for (size, is_proxy, most) in [(20, false, 501), (1000, false, 16), (9000, false, 6), (9000, true, 501)] {
        let mut scanner = FrameScanner::new(Moment(0), is_proxy);
        scanner.walk(PREFACE, Moment(0)).unwrap();
        let ask = |scanner: &mut FrameScanner, at: u32| {
            let head = frame_of(2 * at + 1, HEADERS, END_HEADERS, &vec![0; size]);
            scanner.walk(&head, Moment(0)).unwrap();
        };
        for at in 0..most {
            ask(&mut scanner, at);
            assert_eq!(scanner.end_turn(Moment(0)), Ok(()), "{size} {at}");
        }
        ask(&mut scanner, most);
        assert_eq!(scanner.end_turn(Moment(0)), Err(Flood), "{size}");
    }
}

#[test]
fn requests_beside_heads_that_are_refused_do_not_pay_for_those() {
    let mut scanner = begun();
    let mut turns = 0..1_000;
    let flood = turns.find(|at| {
        for each in 0..2 {
            let head = frame_of(4 * at + 2 * each + 1, HEADERS, END_HEADERS, &[0; 3000]);
            scanner.walk(&head, Moment(0)).unwrap();
        }
        scanner.begun();
        scanner.end_turn(Moment(0)).is_err()
    });
    assert!(flood.is_some_and(|turns| turns < 20), "{flood:?}");
}

#[test]
fn what_comes_with_answers_is_free_and_what_takes_them_back_is_not() {
    let mut scanner = begun();
    let turn = |scanner: &mut FrameScanner, at: u32| {
        scanner.walk(&frame_of(2 * at + 1, HEADERS, END_HEADERS | END_STREAM, &[0; 30]), Moment(0)).unwrap();
        scanner.begun();
        scanner.end_turn(Moment(0)).unwrap();
    };
    for at in 0..10_000 {
        turn(&mut scanner, at);
        for _ in 0..3 {
            scanner.gave();
            scanner.walk(&frame(PING, 0, &[0; 8]), Moment(0)).unwrap();
            scanner.walk(&frame(8, 0, &[0; 4]), Moment(0)).unwrap();
        }
    }
    let reset = frame(RST_STREAM, 0, &[0; 4]);
    let resets = (10_000..20_000).find(|at| {
        turn(&mut scanner, *at);
        scanner.walk(&reset, Moment(0)).is_err()
    });
    assert!(resets.is_some_and(|at| at < 10_600), "{resets:?}");
}

#[test]
fn heads_that_become_requests_a_turn_later_cost_nothing_in_the_end() {
    let mut scanner = begun();
    for at in 0..1_000 {
        scanner.walk(&frame_of(2 * at + 1, HEADERS, END_HEADERS, &[0; 2000]), Moment(0)).unwrap();
        scanner.end_turn(Moment(0)).unwrap();
        scanner.begun();
        scanner.end_turn(Moment(0)).unwrap();
    }
}

#[test]
fn a_turn_reads_so_much_and_no_more() {
    let full = |piece: &[u8]| {
        let mut scanner = begun();
        scanner.end_turn(Moment(0)).unwrap();
        let count = (1..).find(|_| {
            scanner.walk(piece, Moment(0)).unwrap();
            scanner.is_turn_full()
        });
        scanner.end_turn(Moment(0)).unwrap();
        assert!(!scanner.is_turn_full());
        count.unwrap()
    };
    assert_eq!(full(&frame(PING, 0, &[0; 8])), 256);
    assert_eq!(full(&frame(DATA, 0, &[0; 8183])), 32);
    assert_eq!(full(&frame_of(1_000, HEADERS, END_HEADERS, &[0; 4 * 1024])), 1);
}

#[test]
fn who_takes_much_may_open_its_windows_often() {
    const WINDOW_UPDATE: u8 = 8;
    let mut scanner = begun();
    for _ in 0..100_000 {
        scanner.wrote(1024);
        scanner.walk(&frame(WINDOW_UPDATE, 0, &[0; 4]), Moment(0)).unwrap();
        scanner.walk(&frame(WINDOW_UPDATE, 0, &[0; 4]), Moment(0)).unwrap();
    }
}

proptest! {
    #[test]
    fn a_head_is_arriving_until_its_last_byte(cuts in prop::collection::vec(1_usize..20, 0..40)) {
        let mut bytes = frame(HEADERS, 0, &[1; 20]);
        bytes.extend(frame(CONTINUATION, 0, &[2; 10]));
        bytes.extend(frame(CONTINUATION, END_HEADERS, &[3; 5]));
        let mut scanner = begun();
        let mut rest = &bytes[..];
        for (at, cut) in cuts.into_iter().enumerate() {
            let (piece, more) = rest.split_at(cut.min(rest.len()));
            scanner.walk(piece, Moment(at as u64)).unwrap();
            rest = more;
            let sent = bytes.len() - rest.len();
            prop_assert_eq!(scanner.head_since().is_some(), (FRAME_HEADER..bytes.len()).contains(&sent));
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = FrameScanner::new(Moment(0), false).walk(&bytes, Moment(0));
    }
}

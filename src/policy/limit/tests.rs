//! Tests promise 6 of the contract: compares each algorithm with its definition over all admitted requests.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::policy::route::Methods;
use crate::types::{Moment, NameId, nanos};

fn limit(algorithm: Algorithm, requests: u32, window: Duration, burst: u32) -> Limit {
    Limit {
        shadow: false,
        adds: false,
        outage: None,
        name: Arc::from("test"),
        id: NameId(1),
        requests,
        window,
        burst,
        algorithm,
        scope: Scope::Key,
        routes: Vec::new(),
        except: Vec::new(),
        methods: Methods::All,
        numbers: Numbers::of("test", requests, window),
    }
}

fn attempt(state: &mut LimitState, limit: &Limit, now: Moment) -> LimitStatus {
    state.adapt(&limit.rate(), now);
    let status = state.peek(&limit.rate(), now);
    if status.admitted {
        state.take(&status, now);
    }
    status
}

const START: u64 = 1 << 60;

/// Generates gaps between requests, in nanoseconds: often zero, often about a part of the window, sometimes long.
fn gaps(window_ms: u64) -> impl Strategy<Value = Vec<u64>> {
    let window = window_ms * 1_000_000;
    let gap = prop_oneof![
        4 => Just(0),
        4 => 0..window / 60 + 2,
        3 => 0..window / 4 + 2,
        1 => window - 2..window + 3,
        1 => 0..window * 2,
    ];
    prop::collection::vec(gap, 1..300)
}

proptest! {
    #[test]
    fn a_sliding_window_never_admits_more_than_n_in_any_window(
        requests in 1_u32..20,
        (window_ms, gaps) in (1_u64..5_000).prop_flat_map(|ms| (Just(ms), gaps(ms))),
    ) {
        let limit = limit(Algorithm::SlidingWindow, requests, Duration::from_millis(window_ms), 1);
        let window = nanos(limit.window);
        let mut state = LimitState::fresh(&limit.rate());
        let mut admitted: Vec<u64> = Vec::new();
        let mut now = START;
        for gap in gaps {
            now += gap;
            let in_span = |span: u64| admitted.iter().filter(|&&at| at > now - span).count();
            let (strict, wider) = (in_span(window), in_span(window + window / 60 + 122));
            let status = attempt(&mut state, &limit, Moment(now));
            if status.admitted {
                prop_assert!(strict < requests as usize);
                admitted.push(now);
            } else {
                prop_assert!(wider >= requests as usize, "a window a sixtieth longer admits this");
                prop_assert!(status.after > Duration::ZERO && status.after <= limit.window * 61 / 60 + Duration::from_nanos(61));
                let later = now + nanos(status.after);
                prop_assert!(!peek_at(&state, &limit, later - 1).admitted, "Retry-After is not late");
                prop_assert!(peek_at(&state, &limit, later).admitted, "Retry-After is not early");
            }
        }
    }

    #[test]
    fn gcra_equals_its_definition(
        requests in 1_u32..50,
        burst in 1_u32..50,
        (window_ms, gaps) in (1_u64..5_000).prop_flat_map(|ms| (Just(ms), gaps(ms))),
    ) {
        let limit = limit(Algorithm::Gcra, requests, Duration::from_millis(window_ms), burst);
        let interval = nanos(limit.window).div_ceil(u64::from(requests));
        let mut state = LimitState::fresh(&limit.rate());
        let mut arrival = 0_u64; // the theoretical arrival time by its definition
        let mut admitted: Vec<u64> = Vec::new();
        let mut now = START;
        for gap in gaps {
            now += gap;
            let conforms = arrival.saturating_sub(now) <= interval * u64::from(burst - 1);
            let status = attempt(&mut state, &limit, Moment(now));
            prop_assert_eq!(status.admitted, conforms);
            if conforms {
                arrival = arrival.max(now) + interval;
                admitted.push(now);
                let full = u64::from(burst) * interval;
                prop_assert_eq!(u64::from(status.remaining), (full - (arrival - now)) / interval);
                // Promise 6: since any admitted request, at most burst + elapsed / window × requests.
                for (at, &first) in admitted.iter().enumerate() {
                    let count = (admitted.len() - at) as u128;
                    let allowed = u128::from(burst) * u128::from(nanos(limit.window))
                        + u128::from(now - first) * u128::from(requests);
                    prop_assert!(count * u128::from(nanos(limit.window)) <= allowed);
                }
            } else {
                let later = now + nanos(status.after);
                prop_assert!(!peek_at(&state, &limit, later - 1).admitted);
                prop_assert!(peek_at(&state, &limit, later).admitted);
            }
        }
    }

    #[test]
    fn saving_and_restoring_refills_nothing(
        sliding: bool,
        requests in 1_u32..20,
        window_ms in 1_u64..5_000,
        used in 0_usize..40,
        away_ms in 0_u64..6_000,
        origin in 1_u64 << 59..1 << 61,
    ) {
        let algorithm = if sliding { Algorithm::SlidingWindow } else { Algorithm::Gcra };
        let limit = limit(algorithm, requests, Duration::from_millis(window_ms), requests);
        let mut state = LimitState::fresh(&limit.rate());
        let mut admitted = Vec::new();
        for at in 0..used {
            let now = START + at as u64 * 100_000;
            if attempt(&mut state, &limit, Moment(now)).admitted {
                admitted.push(now);
            }
        }
        let stopped = Moment(START + 4_000_000);
        let mut bytes = Vec::new();
        state.save(stopped, &mut bytes);
        let mut rest = &*bytes;
        let away = Duration::from_millis(away_ms);
        let mut restored = LimitState::restore(&mut rest, away, Moment(origin)).unwrap();
        prop_assert!(rest.is_empty());
        let later = stopped.plus(away);
        let mut without_stop = 0;
        while attempt(&mut state, &limit, later).admitted {
            without_stop += 1;
        }
        let mut with_stop = 0;
        while attempt(&mut restored, &limit, Moment(origin)).admitted {
            with_stop += 1;
        }
        if sliding {
            // After a restore the parts begin at other times, so up to one part may count differently, but no
            // window contains more requests than the limit.
            let within = admitted.iter().filter(|&&at| at > later.0 - nanos(limit.window)).count();
            prop_assert!(with_stop + within <= requests as usize, "{with_stop} and {within}");
        }
        if !sliding {
            prop_assert_eq!(with_stop, without_stop);
        }
    }

    #[test]
    fn changing_numbers_or_algorithm_keeps_what_was_used(
        from_sliding: bool,
        to_sliding: bool,
        before in 1_u32..20,
        after in 1_u32..20,
        windows in (1_u64..5_000, 1_u64..5_000),
    ) {
        let pick = |sliding| if sliding { Algorithm::SlidingWindow } else { Algorithm::Gcra };
        let old = limit(pick(from_sliding), before, Duration::from_millis(windows.0), before);
        let new = limit(pick(to_sliding), after, Duration::from_millis(windows.1), after);
        let mut state = LimitState::fresh(&old.rate());
        while attempt(&mut state, &old, Moment(START)).admitted {}
        let mut more = 0;
        while attempt(&mut state, &new, Moment(START)).admitted {
            more += 1;
        }
        prop_assert_eq!(more, after.saturating_sub(before));
    }
}

fn peek_at(state: &LimitState, limit: &Limit, now: u64) -> LimitStatus {
    let mut state = state.clone();
    state.adapt(&limit.rate(), Moment(now));
    state.peek(&limit.rate(), Moment(now))
}

#[test]
fn a_used_up_state_becomes_fresh_again() {
    for algorithm in [Algorithm::Gcra, Algorithm::SlidingWindow] {
        let limit = limit(algorithm, 3, Duration::from_secs(60), 3);
        let mut state = LimitState::fresh(&limit.rate());
        assert!(state.is_fresh(Moment(START)));
        attempt(&mut state, &limit, Moment(START));
        assert!(!state.is_fresh(Moment(START + 1_000_000_000)));
        assert!(state.is_fresh(Moment(START).plus(Duration::from_secs(62))));
    }
}

#[test]
fn nothing_but_a_state_is_restored() {
    for bytes in [&[][..], &[2], &[0, 1, 2], &[1, 1, 0, 0, 0, 0, 0, 0, 0, 9]] {
        assert_eq!(LimitState::restore(&mut &*bytes, Duration::ZERO, Moment(START)), None);
    }
}

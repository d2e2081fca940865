//! Selects a server for a request.

use http::HeaderName;

/// How the server of a request is selected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The less busy of two servers that are drawn at random by weight ("The Power of Two Choices in Randomized Load
    /// Balancing", Mitzenmacher, 2001).
    #[default]
    LeastRequests,
    /// One server after the other, by weight.
    RoundRobin,
    /// The same server for requests that have this in common, as long as it is available.
    Hash(HashBy),
}

/// What requests to the same server have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// The account; on public routes the client's address.
    Account,
    /// The key; on public routes the client's address.
    Key,
    /// The value of a request header.
    Header(HeaderName),
}

/// A server that may be selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Identifies the server.
    pub id: u64,
    /// Its share of the requests, compared with the other candidates; not 0.
    pub weight: u64,
    /// Its requests in flight.
    pub in_flight: u64,
}

impl Candidate {
    /// True if this server is busier than another, compared by weight.
    fn is_busier_than(&self, other: &Self) -> bool {
        let load = |of: &Self, weight: u64| u128::from(of.in_flight) * u128::from(weight);
        load(self, other.weight) > load(other, self.weight)
    }
}

/// Selects the less busy of two candidates, which the two random numbers draw by weight. Returns its index; `None`
/// without candidates.
#[must_use]
pub fn least_requests(candidates: &[Candidate], random: (u64, u64)) -> Option<usize> {
    let total: u64 = candidates.iter().map(|it| it.weight).sum();
    let first = draw(candidates, scaled(random.0, total), None)?;
    let rest = total - candidates[first].weight;
    match draw(candidates, scaled(random.1, rest), Some(first)) {
        Some(second) if candidates[first].is_busier_than(&candidates[second]) => Some(second),
        _ => Some(first),
    }
}

/// A random number below `limit`, made of one of 64 bits.
fn scaled(random: u64, limit: u64) -> u64 {
    u64::try_from((u128::from(random) * u128::from(limit)) >> 64).unwrap_or_default()
}

/// The candidate at a position in the sum of all weights, without the one at `except`.
fn draw(candidates: &[Candidate], mut position: u64, except: Option<usize>) -> Option<usize> {
    for (at, candidate) in candidates.iter().enumerate().filter(|(at, _)| Some(*at) != except) {
        if position < candidate.weight {
            return Some(at);
        }
        position -= candidate.weight;
    }
    None
}

/// Selects a candidate by rendezvous hashing with weights ("Weighted distributed hash tables", Schindelhauer and
/// Schomaker, 2005): if a server is added or removed, only requests of this server move. Returns its index; `None`
/// without candidates. `affinity`: the hash of what requests to the same server have in common.
#[must_use]
pub fn rendezvous(candidates: &[Candidate], affinity: u64) -> Option<usize> {
    #[expect(clippy::cast_precision_loss, reason = "53 bits of a hash are enough")]
    let score = |candidate: &Candidate| {
        let unit = ((mixed(affinity ^ mixed(candidate.id)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        candidate.weight as f64 / -unit.ln()
    };
    let scores = candidates.iter().map(score).enumerate();
    scores.max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(at, _)| at)
}

/// The finaliser of SplitMix64 ("Fast splittable pseudorandom number generators", Steele, Lea and Flood, 2014).
fn mixed(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Takes turns by weight, so that the turns of each server are spread evenly (nginx's smooth weighted round-robin).
/// At most as many servers as were last candidates are remembered.
#[derive(Clone, Debug, Default)]
pub struct Turns(Vec<Turn>);

#[derive(Clone, Copy, Debug)]
struct Turn {
    id: u64,
    credit: i128,
}

impl Turns {
    /// Selects the next candidate. Returns its index; `None` without candidates.
    pub fn next(&mut self, candidates: &[Candidate]) -> Option<usize> {
        self.0.retain(|turn| candidates.iter().any(|it| it.id == turn.id));
        for candidate in candidates {
            match self.0.iter_mut().find(|turn| turn.id == candidate.id) {
                Some(turn) => turn.credit += i128::from(candidate.weight),
                None => self.0.push(Turn { id: candidate.id, credit: i128::from(candidate.weight) }),
            }
        }
        let total: i128 = candidates.iter().map(|it| i128::from(it.weight)).sum();
        // Of equal ones the last is the maximum, so the order is reversed.
        let turn = self.0.iter_mut().rev().max_by_key(|turn| turn.credit)?;
        turn.credit -= total;
        let id = turn.id;
        candidates.iter().position(|it| it.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (1_u64..50, 0_u64..20);
        proptest::collection::vec(one, 1..8).prop_map(|list| {
            let numbered = list.into_iter().enumerate();
            numbered
                .map(|(at, (weight, in_flight))| Candidate { id: at as u64 * 7, weight, in_flight })
                .collect()
        })
    }

    /// How often each of the candidates was selected.
    fn counts(
        candidates: &[Candidate],
        rounds: u64,
        mut select: impl FnMut(u64) -> Option<usize>,
    ) -> Vec<u64> {
        let mut counts = vec![0; candidates.len()];
        for round in 0..rounds {
            counts[select(round).unwrap()] += 1;
        }
        counts
    }

    fn shares_are_by_weight(candidates: &[Candidate], counts: &[u64], tolerance: f64) {
        let total: u64 = candidates.iter().map(|it| it.weight).sum();
        let all: u64 = counts.iter().sum();
        for (candidate, count) in candidates.iter().zip(counts) {
            let (share, wanted) = (*count as f64 / all as f64, candidate.weight as f64 / total as f64);
            assert!((share - wanted).abs() <= tolerance, "{candidate:?}: {share} instead of {wanted}");
        }
    }

    proptest! {
        #[test]
        fn idle_servers_get_their_share(list in candidates(), seed in any::<u64>()) {
            let idle: Vec<_> = list.iter().map(|it| Candidate { in_flight: 0, ..*it }).collect();
            let mut random = fastrand::Rng::with_seed(seed);
            let found = counts(&idle, 20_000, |_| least_requests(&idle, (random.u64(..), random.u64(..))));
            shares_are_by_weight(&idle, &found, 0.02);
            let found = counts(&idle, 20_000, |round| rendezvous(&idle, seed.wrapping_add(round)));
            shares_are_by_weight(&idle, &found, 0.02);
        }

        #[test]
        fn turns_are_exact_in_every_cycle(list in candidates()) {
            let (mut turns, total) = (Turns::default(), list.iter().map(|it| it.weight).sum::<u64>());
            for _ in 0..3 {
                let found = counts(&list, total, |_| turns.next(&list));
                let wanted: Vec<u64> = list.iter().map(|it| it.weight).collect();
                prop_assert_eq!(found, wanted);
            }
        }

        #[test]
        fn of_two_the_less_busy_is_selected(list in candidates(), random in any::<(u64, u64)>()) {
            let at = least_requests(&list, random).unwrap();
            let busiest = list.iter().all(|it| std::ptr::eq(it, &list[at]) || list[at].is_busier_than(it));
            prop_assert!(list.len() == 1 || !busiest, "the busiest of all was selected");
        }

        #[test]
        fn a_server_that_leaves_moves_only_its_own(list in candidates(), affinity in any::<u64>()) {
            let before = rendezvous(&list, affinity).unwrap();
            for gone in (0..list.len()).filter(|gone| *gone != before) {
                let rest: Vec<_> = list.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, it)| *it).collect();
                prop_assert_eq!(rest[rendezvous(&rest, affinity).unwrap()].id, list[before].id);
            }
        }
    }

    #[test]
    fn nothing_is_selected_of_nothing() {
        assert_eq!(least_requests(&[], (1, 2)), None);
        assert_eq!(rendezvous(&[], 1), None);
        assert_eq!(Turns::default().next(&[]), None);
    }

    #[test]
    fn servers_of_equal_weight_take_turns_in_their_order() {
        let list: Vec<_> = (0..3).map(|id| Candidate { id, weight: 1, in_flight: 0 }).collect();
        let mut turns = Turns::default();
        let order: Vec<_> = (0..6).map(|_| turns.next(&list).unwrap()).collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }
}

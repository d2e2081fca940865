//! Splits an amount over the buckets that it belongs to.

use std::fmt::Write;

use crate::types::{BucketName, Credits};

/// The parts of an amount, by bucket. Their sum is the amount, each part has its sign, and each bucket occurs once. An
/// amount of 0 has no parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split(Vec<(BucketName, Credits)>);

impl Split {
    /// An amount that belongs to one bucket.
    #[must_use]
    pub fn whole(bucket: BucketName, amount: Credits) -> Self {
        let mut split = Self::default();
        split.add(&bucket, amount);
        split
    }

    /// Adds a part, whose sum with the others must not overflow.
    pub fn add(&mut self, bucket: &BucketName, amount: Credits) {
        if amount.is_zero() {
            return;
        }
        match self.0.iter_mut().find(|(name, _)| name == bucket) {
            Some((_, part)) => *part = part.checked_add(amount).unwrap_or(*part),
            None => self.0.push((bucket.clone(), amount)),
        }
    }

    /// The split of the opposite amount.
    #[must_use]
    pub fn negated(&self) -> Self {
        let negate = |part: &Credits| Credits::ZERO.checked_sub(*part).unwrap_or_default();
        Self(self.0.iter().map(|(name, part)| (name.clone(), negate(part))).collect())
    }

    /// The parts, in the order in which they were drawn.
    pub fn parts(&self) -> impl Iterator<Item = (&BucketName, Credits)> {
        self.0.iter().map(|(name, part)| (name, *part))
    }

    /// The part of a bucket.
    #[must_use]
    pub fn part(&self, bucket: &BucketName) -> Credits {
        self.parts().find(|(name, _)| *name == bucket).map(|(_, part)| part).unwrap_or_default()
    }

    /// The split as entries record it: `None` if the default bucket has all of it, the name of the bucket that has all
    /// of it, or `NAME:AMOUNT` for each part, separated by spaces.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match &*self.0 {
            [] => None,
            [(name, _)] => (!name.is_default()).then(|| name.to_string()),
            parts => {
                let mut text = String::new();
                for (name, part) in parts {
                    let space = if text.is_empty() { "" } else { " " };
                    let written = write!(text, "{space}{name}:{part}");
                    debug_assert!(written.is_ok(), "writing to a string cannot fail");
                }
                Some(text)
            }
        }
    }

    /// The split as responses show it: `{"amount":0.25,"source":"sub","split":{"sub":0.25}}`. The source is the bucket that
    /// pays first.
    #[must_use]
    pub fn json(&self, amount: Credits) -> String {
        let parts = self.0.iter().map(|(name, part)| format!("\"{name}\":{part}"));
        let (parts, source) = (parts.collect::<Vec<_>>().join(","), self.0.first().map(|(name, _)| name));
        let source = source.cloned().unwrap_or_default();
        format!("{{\"amount\":{amount},\"source\":\"{source}\",\"split\":{{{parts}}}}}")
    }

    /// Reads [`Split::text`]. `None` if it is not the text of a split of this amount.
    #[must_use]
    pub fn parse(text: Option<&str>, amount: Credits) -> Option<Self> {
        let Some(text) = text else { return Some(Self::whole(BucketName::default(), amount)) };
        let mut split = Self::default();
        if !text.contains(':') {
            split.add(&text.parse().ok()?, amount);
        }
        for part in text.split(' ').filter(|_| text.contains(':')) {
            let (name, part) = part.split_once(':')?;
            split.add(&name.parse().ok()?, part.parse().ok()?);
        }
        let sum = split.parts().try_fold(Credits::ZERO, |sum, (_, part)| sum.checked_add(part));
        (sum == Some(amount) && split.text().as_deref() == Some(text)).then_some(split)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn splits_survive_text(parts in prop::collection::btree_map("[a-z.]{1,8}", 1_i64..1_000_000_000, 0..4)) {
            let mut split = Split::default();
            let mut sum = 0;
            for (name, part) in parts {
                split.add(&name.parse().unwrap(), Credits::from_millionths(-part));
                sum -= part;
            }
            let amount = Credits::from_millionths(sum);
            prop_assert_eq!(Split::parse(split.text().as_deref(), amount), Some(split));
        }

        #[test]
        fn what_is_no_split_is_refused(text in "[a-b:0-9. -]{0,12}", amount in -20_i64..20) {
            let amount = Credits::from_millionths(amount);
            if let Some(split) = Split::parse(Some(&text), amount) {
                prop_assert_eq!(split.text(), Some(text));
            }
        }
    }

    #[test]
    fn texts_are_short_where_one_bucket_pays() {
        let (sub, amount) = ("sub".parse().unwrap(), Credits::from_millionths(-250_000));
        let mut split = Split::whole(BucketName::default(), amount);
        assert_eq!(split.text(), None);
        split.add(&sub, amount);
        assert_eq!(split.text().as_deref(), Some("default:-0.25 sub:-0.25"));
        assert_eq!(
            split.negated().json(Credits::from_millionths(500_000)),
            r#"{"amount":0.5,"source":"default","split":{"default":0.25,"sub":0.25}}"#
        );
        assert_eq!(Split::whole(sub, amount).text().as_deref(), Some("sub"));
        assert_eq!(Split::parse(Some("default:-0.25 sub:-0.25"), amount), None, "another amount");
    }
}
